"""Gridworld-pinpad: visit coloured cells in the order of a hidden task (paper App. A).

Cells are numbered row * G + column, colours 0..O-1; actions are 0 up, 1 down, 2 left, 3 right.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from envs.pinpad.layout import (
    Layout,
    cell_radices,
    layout_from_ranks,
    mixed_radix,
    num_words,
)
from envs.pinpad.tasks import TABLE_A1, TABLE_A2, Tasks, encode_tasks

NUM_ACTIONS = 4
Observation = Literal["egocentric", "offsets", "onehot"]
OBSERVATIONS = ("egocentric", "offsets", "onehot")


@struct.dataclass
class PinpadState(environment.EnvState):
    """State of one episode; every field may carry leading batch dimensions.

    Attributes:
        objects, walls, agent: cells, see `Layout`; `agent` is the current cell.
        task: index into `PinpadParams.tasks`.
        progress: colours visited in the right order so far.
        wrong: a colour that was not the next one has been stepped on.
        time: steps since the reset.
    """

    objects: Int[Array, "*b O"]
    walls: Int[Array, "*b W"]
    agent: Int[Array, "*b"]
    task: Int[Array, "*b"]
    progress: Int[Array, "*b"]
    wrong: Bool[Array, "*b"]
    time: Int[Array, "*b"]  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def layout(self) -> Layout:
        """Objects, walls and the current cell of the agent."""
        return Layout(objects=self.objects, walls=self.walls, agent=self.agent)


@struct.dataclass
class PinpadParams(environment.EnvParams):
    """What may vary without a new compilation.

    Attributes:
        tasks: the task of an episode is drawn uniformly from these.
        max_steps_in_episode: T, the episode is truncated after this many steps.
    """

    max_steps_in_episode: Any = struct.field(default=100, kw_only=True)
    tasks: Tasks


@dataclass(frozen=True)
class GridPinpad(environment.Environment[PinpadState, PinpadParams]):
    """Gridworld-pinpad. The fields are static and hashable, the task set lives in `PinpadParams`.

    Observation: float32[obs_dim], concatenated one-hot factors of sizes `factor_sizes`. The task is
        not observed.
        "onehot" (the paper's): one factor of G² cells per object, per wall and for the agent,
        G²(O + W + 1) numbers.
        "egocentric": per object and wall its row and its column minus the agent's (2G - 1 values
        each), then the agent's own row and column (G values each).
        "offsets": the offsets of "egocentric" alone. Absolute positions, and so the grid's borders, are hidden.
    Action: int32 in 0..3, up, down, left, right. Moving into a wall or off the grid does nothing.
    Reward: float32, 1 when the last colour of the task is visited, else 0. With `distractor_reward` > 0 every move up
        among the first `distractor_steps` steps also pays that much with probability 1/2, whatever the task.
    Terminated: task solved, or the agent moved onto a colour that is not the next one.
    Truncated: after `max_steps_in_episode` steps; both flags are set if the last step also
        terminates.

    A colour counts as visited only when the agent moves onto it from another cell, so in a task
    with the same colour twice in a row the agent must leave the cell and come back.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    grid_size: int = 7
    num_objects: int = 8
    num_walls: int = 4
    observation: Observation = "egocentric"
    distractor_reward: float = 0.0
    distractor_steps: int = 8

    def __post_init__(self) -> None:
        _check_env(self)

    # Gymnax interface

    @property
    def name(self) -> str:
        return "GridPinpad"

    @property
    def num_actions(self) -> int:
        return NUM_ACTIONS

    @property
    def default_params(self) -> PinpadParams:
        """T = 100 and the paper's tasks if O allows (Table A1, else A2), else 0 1 … O-1."""
        ascending = ("0123456789"[: self.num_objects],)
        tasks = (
            TABLE_A1 if self.num_objects >= 8 else TABLE_A2 if self.num_objects >= 4 else ascending
        )
        return PinpadParams(tasks=encode_tasks(tasks, self.num_objects))

    def reset_env(self, key: PRNGKeyArray, params: PinpadParams) -> tuple[Array, PinpadState]:
        """Uniform task and uniform layout. Nothing guarantees that the task can be solved in it."""
        cells = cell_radices(self.grid_size, self.num_objects, self.num_walls)
        radices = (params.tasks.lengths.shape[0], *cells)
        words = jax.random.bits(key, (num_words(radices),), jnp.uint32)
        task, *ranks = mixed_radix(words, radices)
        layout = layout_from_ranks(ranks, self.num_objects)
        return self.reset_to(layout, task, params)

    def reset_to(
        self, layout: Layout, task: Int[Array, "*b"], params: PinpadParams
    ) -> tuple[Float[Array, "*b D"], PinpadState]:
        """Start episodes in given layouts with given tasks; any leading batch shape."""
        del params
        task = jnp.asarray(task, jnp.int32)
        zero = jnp.zeros_like(task)
        state = PinpadState(
            objects=layout.objects,
            walls=layout.walls,
            agent=layout.agent,
            task=task,
            progress=zero,
            wrong=jnp.zeros_like(task, dtype=bool),
            time=zero,
        )
        return self.get_obs(state), state

    def step_env(
        self,
        key: PRNGKeyArray,
        state: PinpadState,
        action: int | float | Shaped[Array, ""],
        params: PinpadParams,
    ) -> tuple[Array, PinpadState, Array, Array, dict[Any, Any]]:
        """One deterministic transition of one episode; `key` is for distractor rewards alone."""
        agent = self._move(state, jnp.asarray(action, jnp.int32))
        # The index is clipped after the last colour, when the episode is over.
        last = jnp.int32(params.tasks.sequences.shape[1] - 1)
        target = params.tasks.sequences[state.task, jnp.minimum(state.progress, last)]
        entered = (state.objects == agent) & (agent != state.agent)  # [O]
        right = jnp.any(entered & (jnp.arange(self.num_objects, dtype=jnp.int32) == target))
        progress = state.progress + right.astype(jnp.int32)
        wrong = state.wrong | (jnp.any(entered) & ~right)
        state = replace(state, agent=agent, progress=progress, wrong=wrong, time=state.time + 1)
        success = right & (progress == params.tasks.lengths[state.task])
        info = {"success": success, "progress": progress, "wrong": wrong}
        terminated = self.is_terminated(state, params)
        reward = success.astype(jnp.float32)
        if self.distractor_reward:
            pays = (jnp.asarray(action, jnp.int32) == 0) & (state.time <= self.distractor_steps)
            pays &= jax.random.bernoulli(key)
            reward += jnp.where(pays, jnp.float32(self.distractor_reward), 0.0)
        return self.get_obs(state), state, reward, terminated, info

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: PRNGKeyArray,
        state: PinpadState,
        action: int | float | Shaped[Array, ""],
        params: PinpadParams | None = None,
    ) -> tuple[Array, PinpadState, Array, Array, Array, dict[Any, Any]]:
        """`step_env` with auto-reset: the base class's method, with the same keys and results.

        The base class observes the old and the new episode and selects one observation. Selecting
        the state first takes one observation, unless the caller uses "final_observation".
        """
        params = self.default_params if params is None else params
        step_key, reset_key = jax.random.split(key)
        final_obs, stepped, reward, terminated, info = self.step_env(
            step_key, state, action, params
        )
        truncated = self.is_truncated(stepped, params)
        _, fresh = self.reset_env(reset_key, params)
        done = terminated | truncated
        state = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, stepped)
        info |= {
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": final_obs,
        }
        return self.get_obs(state), state, reward, terminated, truncated, info

    def is_terminated(self, state: PinpadState, params: PinpadParams) -> Bool[Array, "*b"]:
        """Task solved, or wrong colour."""
        return state.wrong | (state.progress >= params.tasks.lengths[state.task])

    def is_truncated(self, state: PinpadState, params: PinpadParams) -> Bool[Array, "*b"]:
        """T steps are over."""
        return state.time >= jnp.asarray(params.max_steps_in_episode, jnp.int32)

    def get_obs(self, state: PinpadState, params: Any = None, key: Any = None) -> Array:
        """Observation of a state."""
        del params, key
        return self.observe(state.objects, state.walls, state.agent)

    def action_space(self, params: PinpadParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params: PinpadParams | None = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (self.obs_dim,), jnp.float32)

    # Ours

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Sizes of the one-hot factors of the observation, in order."""
        things = self.num_objects + self.num_walls
        if self.observation == "onehot":
            return (self.grid_size**2,) * (things + 1)
        own = () if self.observation == "offsets" else (self.grid_size,) * 2
        return (2 * self.grid_size - 1,) * (2 * things) + own

    @property
    def reward_kinds(self) -> tuple[float, ...]:
        """Every reward but 0."""
        d = self.distractor_reward
        return (1.0, d, 1.0 + d) if d else (1.0,)

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        return sum(self.factor_sizes)

    # Gymnax's `observe(key, state, action, params)` is only called by environments that define it
    # and by its MinAtar viewer. Ours takes cells, so that stored trajectories can be observed
    # without building states.
    def observe(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, objects: Int[Array, "*#b O"], walls: Int[Array, "*#b W"], agent: Int[Array, "*b"]
    ) -> Float[Array, "*b D"]:
        """Observation from cells; any leading batch shape, to which those of objects and walls are broadcast.

        One scattered 1 per factor: the cost grows with the number of factors, not of entries.
        """
        sizes = np.array(self.factor_sizes)
        starts = jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32)
        hot = self._factors(objects, walls, agent).reshape(-1, len(sizes)) + starts[None]

        def scatter(index: Array) -> Array:
            zeros = jnp.zeros(self.obs_dim, jnp.float32)
            return zeros.at[index].set(
                1.0, indices_are_sorted=True, unique_indices=True, mode="promise_in_bounds"
            )

        return jax.vmap(scatter)(hot).reshape(*agent.shape, self.obs_dim)

    def _factors(self, objects: Array, walls: Array, agent: Array) -> Int[Array, "*b F"]:
        """Value of each categorical factor of the observation."""
        things = jnp.concatenate([objects, walls], axis=-1)
        things = jnp.broadcast_to(things, (*agent.shape, things.shape[-1]))
        agent = agent[..., None]
        if self.observation == "onehot":
            return jnp.concatenate([things, agent], axis=-1)
        rows, columns = _divide(things, self.grid_size)
        row, column = _divide(agent, self.grid_size)
        offsets = jnp.stack([rows - row, columns - column], axis=-1) + (self.grid_size - 1)
        offsets = offsets.reshape(*agent.shape[:-1], -1)
        if self.observation == "offsets":
            return offsets
        return jnp.concatenate([offsets, row, column], axis=-1)

    def _move(self, state: PinpadState, action: Int[Array, ""]) -> Int[Array, ""]:
        size = self.grid_size
        column = jax.lax.rem(state.agent, jnp.int32(size))
        off_grid = (
            ((action == 0) & (state.agent < size))
            | ((action == 1) & (state.agent >= size * (size - 1)))
            | ((action == 2) & (column == 0))
            | ((action == 3) & (column == size - 1))
        )
        step = jnp.where(action < 2, size, 1) * jnp.where((action & 1) == 0, -1, 1)
        cell = state.agent + step.astype(jnp.int32)
        blocked = off_grid | jnp.any(state.walls == cell)
        return jnp.where(blocked, state.agent, cell)


def _divide(cell: Array, size: int) -> tuple[Array, Array]:
    # lax.div and lax.rem skip the sign handling of // and %; cells are never negative.
    divisor = jnp.full_like(cell, size)
    return jax.lax.div(cell, divisor), jax.lax.rem(cell, divisor)


def _check_env(env: GridPinpad) -> None:
    if not 2 <= env.grid_size <= 32:  # `planning` keeps a row in 32 bits
        raise ValueError(f"grid_size={env.grid_size}: allowed is 2 to 32")
    if not 1 <= env.num_objects <= 10:  # a task has one digit per colour
        raise ValueError(f"num_objects={env.num_objects}: allowed is 1 to 10")
    if env.num_walls < 0:
        raise ValueError(f"num_walls={env.num_walls}: allowed is 0 or more")
    needed, cells = env.num_objects + env.num_walls + 1, env.grid_size**2
    if needed > cells:
        raise ValueError(
            f"num_objects={env.num_objects} + num_walls={env.num_walls} + 1 agent = {needed} "
            f"cells: allowed is at most grid_size² = {cells}"
        )
    if not 0 <= env.distractor_reward < 1:
        raise ValueError(f"distractor_reward={env.distractor_reward}: allowed is 0 to below 1")
    if env.observation not in OBSERVATIONS:
        raise ValueError(f"observation={env.observation!r}: allowed are {', '.join(OBSERVATIONS)}")
