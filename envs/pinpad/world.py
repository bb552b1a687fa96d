"""Gridworld-pinpad as a `World`: one environment with one task set."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import adapter
from envs.adapter import TimeStep
from envs.pinpad.expert import Trajectories, check_solvable, sample_solvable
from envs.pinpad.gridworld import NUM_ACTIONS, GridPinpad, PinpadParams, PinpadState
from envs.pinpad.layout import Layout, apply_symmetry
from envs.pinpad.oracle import oracle_nll
from envs.pinpad.render import PALETTE, render_state
from envs.pinpad.tasks import Tasks, encode_tasks
from envs.world import ActionSpec, ObservationSpec

SYMMETRIES = 8


@dataclass(frozen=True)
class PinpadWorld:
    """See `envs.world.World`. A start is a layout and the index of a task that can be solved in it; goals are colours.

    Raises:
        ValueError: on construction, if a task is wrong or cannot be solved within the horizon in any layout.
    """

    env: GridPinpad
    sequences: tuple[str, ...]
    horizon: int

    def __post_init__(self) -> None:
        check_solvable(self.tasks, self.horizon)

    @property
    def tasks(self) -> Tasks:
        """The task set as arrays."""
        return encode_tasks(self.sequences, self.env.num_objects)

    @property
    def params(self) -> PinpadParams:
        """Environment parameters."""
        return PinpadParams(tasks=self.tasks, max_steps_in_episode=self.horizon)

    @property
    def obs_spec(self) -> ObservationSpec:
        """One-hot factors."""
        return ObservationSpec(self.env.obs_dim, self.env.factor_sizes)

    @property
    def action_spec(self) -> ActionSpec:
        """Four cardinal moves."""
        return ActionSpec(num_actions=NUM_ACTIONS)

    @property
    def num_goals(self) -> int:
        """O colours."""
        return self.env.num_objects

    @property
    def reward_kinds(self) -> tuple[float, ...]:
        """Every reward but 0."""
        return self.env.reward_kinds

    def with_distractors(self, reward: float, steps: int) -> "PinpadWorld":
        """The same world, in which early moves up also pay (see `GridPinpad`)."""
        env = replace(self.env, distractor_reward=reward, distractor_steps=steps)
        return replace(self, env=env)

    def starts(
        self, key: jax.Array, n: int
    ) -> tuple[tuple[Layout, jax.Array], dict[str, jax.Array]]:
        """Uniform tasks [n] with layouts in which they can be solved within the horizon, and the fraction of proposed
        layouts in which they could (`solvable_fraction`)."""
        key_task, key_layout = jax.random.split(key)
        task = jax.random.randint(key_task, (n,), 0, len(self.sequences))
        layout, solvable = sample_solvable(key_layout, n, self.env, self.tasks, task, self.horizon)
        return (layout, task), {"solvable_fraction": solvable}

    def reset(self, start: tuple[Layout, jax.Array]) -> tuple[PinpadState, TimeStep]:
        """Begin in this layout with this task."""
        layout, task = start
        obs, state = self.env.reset_to(layout, task, self.params)
        return state, adapter.first(obs)

    def step(
        self, key: jax.Array, state: PinpadState, action: jax.Array
    ) -> tuple[PinpadState, TimeStep]:
        """One move."""
        return adapter.step(self.env, key, state, action, self.params)

    def goal(self, state: PinpadState) -> jax.Array:
        """Colour to be visited next; after the last one, the last."""
        sequences = self.tasks.sequences
        last = sequences.shape[1] - 1
        return sequences[state.task, jnp.minimum(state.progress, last)]

    def outcome(self, state: PinpadState) -> dict[str, jax.Array]:
        """`success`, and colours visited in the right order."""
        success = state.progress >= self.tasks.lengths[state.task]
        return {"success": success, "progress": state.progress}

    def view(self, key: jax.Array, source: Trajectories, time: jax.Array) -> jax.Array:
        """Observations [R, V, O] of trajectories [R] at `time` [R, V], each grid turned or mirrored by one of the
        square's eight symmetries, drawn anew."""
        element = jax.random.randint(key, (time.shape[0],), 0, SYMMETRIES)
        return symmetric_observations(self.env, source, time, element)

    def oracle(self, key: jax.Array, count: int) -> dict[str, jax.Array]:
        """Nats per step that the best predictors of the expert pay (`envs.pinpad.oracle`)."""
        return oracle_nll(key, self.env, self.tasks, self.horizon, count)

    def draw(self, state: Any) -> np.ndarray:
        """Picture of a state, uint8 [H, W, 3]."""
        return render_state(state.objects, state.walls, state.agent, self.env.grid_size)

    def name_task(self, i: int) -> str:
        """Colours in order."""
        return "-".join(self.sequences[i])

    def name_goal(self, i: int) -> str:
        """The colour's number, as drawn."""
        return f"colour {i}"

    def goal_colour(self, i: int) -> tuple[int, int, int]:
        """RGB."""
        red, green, blue = PALETTE[i % len(PALETTE)].tolist()
        return red, green, blue


def symmetric_observations(
    env: GridPinpad, trajectories: Trajectories, time: jax.Array, element: jax.Array
) -> jax.Array:
    """Observations [R, V, O] at `time` [R, V], the grid of trajectory r moved by the symmetry `element` [R]."""
    rows, tokens = time.shape

    def move(cells: jax.Array) -> jax.Array:
        return apply_symmetry(cells, element[:, None], env.grid_size)

    def at_every_token(cells: jax.Array) -> jax.Array:
        return jnp.broadcast_to(move(cells)[:, None], (rows, tokens, cells.shape[1]))

    return env.observe(
        at_every_token(trajectories.objects),
        at_every_token(trajectories.walls),
        move(jnp.take_along_axis(trajectories.agent, time, axis=1)),
    )
