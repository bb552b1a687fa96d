"""Linear key-to-door: a key at the start, a door at the end, distractor rewards in between.

COCOA (arXiv 2306.16803), section 4 and appendix; the reward of opening the door needs a decision
taken `length` - 2 steps earlier.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from envs.credit.mdp import Model, Outcome, unique_rewards

EMPTY, APPLE_LEFT, APPLE_RIGHT, DOOR, KEY, TREASURE = range(6)
PICK_KEY, PICK_LEFT, PICK_RIGHT, OPEN_DOOR = range(4)


@struct.dataclass
class KeyToDoorState(environment.EnvState):
    """time: the position, since every step moves one cell on; cells: contents of the track;
    keys: keys picked so far; apples: distractors picked so far."""

    time: Int[Array, "*b"]  # pyright: ignore[reportIncompatibleVariableOverride]
    cells: Int[Array, "*b L"]
    keys: Int[Array, "*b"]
    apples: Int[Array, "*b"]


@struct.dataclass
class KeyToDoorParams(environment.EnvParams):
    """Rewards: each draw takes one of the values with probability softmax(logits)."""

    distractor_values: Float[Array, " n"] = struct.field(default=None)  # pyright: ignore
    distractor_logits: Float[Array, " n"] = struct.field(default=None)  # pyright: ignore
    treasure_values: Float[Array, " m"] = struct.field(default=None)  # pyright: ignore
    treasure_logits: Float[Array, " m"] = struct.field(default=None)  # pyright: ignore


@dataclass(frozen=True)
class KeyToDoor(environment.Environment[KeyToDoorState, KeyToDoorParams]):
    """The agent moves one cell right per step, whatever it does; an episode has `length` steps.

    Observation: float32[8 + num_keys]: position / length, one-hot of the current cell (6), one-hot
        of the number of keys picked so far. After the end: those of the last cell, position 1.
    Action: int32, 0 pick key, 1 pick left, 2 pick right, 3 open door.
    Reward: float32; a distractor value for the matching pick at an apple, a treasure value in the
        last cell if the door was opened with all keys.
    Terminated: after the last cell.

    Attributes:
        length: number of cells: key, `length` - 3 distractor cells, door, room of the treasure.
        num_keys: key i lies in cell floor(i (length - 2) / num_keys).
        distractor_prob: probability that a distractor cell holds an apple.
        layout_seed: of numpy's default generator; one layout for all episodes and seeds.
        treasure_at_door: the treasure is paid for opening the door, not in the last cell.
        ignore_door: with all keys the door opens whatever the action.
        random_distractors: a new layout in each episode.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    length: int = 23
    num_keys: int = 1
    distractor_prob: float = 0.8
    layout_seed: int = 2022
    treasure_at_door: bool = False
    ignore_door: bool = False
    random_distractors: bool = False

    def __post_init__(self) -> None:
        if self.length < 4:
            raise ValueError(f"length={self.length}: allowed is 4 or more")
        if not 1 <= self.num_keys <= self.length - 2:
            raise ValueError(f"num_keys={self.num_keys}: allowed is 1 to length - 2")
        if not 0.0 <= self.distractor_prob <= 1.0:
            raise ValueError(f"distractor_prob={self.distractor_prob}: allowed is 0 to 1")

    # Gymnax interface

    @property
    def name(self) -> str:
        return "KeyToDoor"

    @property
    def num_actions(self) -> int:
        return 4

    @property
    def default_params(self) -> KeyToDoorParams:
        return self.make_params()

    def make_params(
        self,
        distractor: Sequence[float] = (0.1, 0.9),
        treasure: Sequence[float] = (0.2,),
        treasure_logits: Sequence[float] | None = None,
    ) -> KeyToDoorParams:
        """Rewards in units of 23 / length, which keeps the sum of distractor rewards about the same
        for every length."""
        scale = 23.0 / self.length
        logits = [0.0] * len(treasure) if treasure_logits is None else treasure_logits
        if not distractor or not treasure or len(logits) != len(treasure):
            raise ValueError(
                f"treasure={tuple(treasure)} with treasure_logits={tuple(logits)}: allowed are "
                "lists of equal length with at least one value"
            )
        as_array = lambda values: jnp.asarray(np.asarray(values, np.float32))  # noqa: E731
        return KeyToDoorParams(
            max_steps_in_episode=self.length + 1,
            distractor_values=as_array([scale * v for v in distractor]),
            distractor_logits=as_array([0.0] * len(distractor)),
            treasure_values=as_array([scale * v for v in treasure]),
            treasure_logits=as_array(logits),
        )

    def reset_env(self, key: PRNGKeyArray, params: KeyToDoorParams) -> tuple[Array, KeyToDoorState]:
        cells = jnp.asarray(self.layout(), jnp.int32)
        if self.random_distractors:
            probs = jnp.asarray(self._cell_probs(), jnp.float32)
            drawn = jax.random.choice(key, 3, (self.length,), p=probs).astype(jnp.int32)
            fixed = (cells == KEY) | (cells == DOOR)
            fixed = fixed.at[self.length - 1].set(True)
            cells = jnp.where(fixed, cells, drawn)
        zero = jnp.int32(0)
        state = KeyToDoorState(time=zero, cells=cells, keys=zero, apples=zero)
        return self.get_obs(state), state

    def step_env(
        self,
        key: PRNGKeyArray,
        state: KeyToDoorState,
        action: int | float | Shaped[Array, ""],
        params: KeyToDoorParams,
    ) -> tuple[Array, KeyToDoorState, Array, Array, dict[Any, Any]]:
        action = jnp.asarray(action, jnp.int32)
        apple_key, treasure_key = jax.random.split(key)
        last = self.length - 1
        here = jnp.minimum(state.time, last)
        cell = state.cells[here]

        apple = ((cell == APPLE_LEFT) & (action == PICK_LEFT)) | (
            (cell == APPLE_RIGHT) & (action == PICK_RIGHT)
        )
        key_picked = (cell == KEY) & (action == PICK_KEY)
        cells = state.cells.at[here].set(jnp.where(apple | key_picked, EMPTY, cell))
        opened = (cell == DOOR) & ~jnp.any(cells == KEY)
        if not self.ignore_door:
            opened &= action == OPEN_DOOR
        paid = opened if self.treasure_at_door else cell == TREASURE
        reward = _draw(apple_key, params.distractor_values, params.distractor_logits, apple)
        reward += _draw(treasure_key, params.treasure_values, params.treasure_logits, paid)

        time = state.time + 1
        room = jnp.where(opened, TREASURE, EMPTY)
        cells = cells.at[last].set(jnp.where(time == last, room, cells[last]))
        state = replace(
            state,
            time=time,
            cells=cells,
            keys=state.keys + key_picked.astype(jnp.int32),
            apples=state.apples + apple.astype(jnp.int32),
        )
        if self.random_distractors:  # this episode's apples: picked ones and those on the track
            on_track = (cells == APPLE_LEFT) | (cells == APPLE_RIGHT)
            found = state.apples + jnp.sum(on_track, dtype=jnp.int32)
            apples = jnp.maximum(found, 1).astype(jnp.float32)
        else:
            apples = max(self.num_apples, 1)
        info = {
            "treasure": (cells[last] == TREASURE).astype(jnp.float32),
            "distractors": state.apples.astype(jnp.float32) / apples,
        }
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def is_terminated(self, state: KeyToDoorState, params: Any) -> Bool[Array, "*b"]:
        return state.time >= self.length

    def get_obs(self, state: KeyToDoorState, params: Any = None, key: Any = None) -> Array:
        cell = state.cells[jnp.minimum(state.time, self.length - 1)]
        position = state.time.astype(jnp.float32) / jnp.float32(self.length)
        return jnp.concatenate(
            [
                position[None],
                jax.nn.one_hot(cell, 6, dtype=jnp.float32),
                jax.nn.one_hot(state.keys, self.num_keys + 1, dtype=jnp.float32),
            ]
        )

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(4)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (8 + self.num_keys,), jnp.float32)

    # Ours

    def layout(self) -> np.ndarray:
        """int[length], the track at the start of an episode."""
        cells = np.zeros(self.length, np.int64)
        generator = np.random.default_rng(self.layout_seed)
        cells[1:-2] = generator.choice(3, size=self.length - 3, p=self._cell_probs())
        cells[-2] = DOOR
        for i in range(self.num_keys):
            cells[i * (self.length - 2) // self.num_keys] = KEY
        return cells

    @property
    def num_apples(self) -> int:
        """Distractors in the fixed layout; with `random_distractors` every episode has its own."""
        return int(np.isin(self.layout(), (APPLE_LEFT, APPLE_RIGHT)).sum())

    def reward_values(self, params: KeyToDoorParams) -> tuple[float, ...]:
        """Every reward that may occur; values of probability zero are listed too."""
        return unique_rewards(
            np.concatenate([params.distractor_values, params.treasure_values]).tolist()
        )

    def model(self, params: KeyToDoorParams) -> Model:
        """The same dynamics in plain Python, for `enumerate_mdp`. A state is (position, keys
        picked, treasure in the last cell): a key that was passed is lost, so their number is enough."""
        if self.random_distractors:
            raise ValueError("random_distractors=True: exact tables need one fixed layout")
        track = self.layout().tolist()
        apples = _distribution(params.distractor_values, params.distractor_logits)
        treasure = _distribution(params.treasure_values, params.treasure_logits)
        last, nothing = self.length - 1, [(1.0, 0.0)]

        def outcomes(state: Any, action: int) -> list[Outcome]:
            position, keys, open_room = state
            cell = TREASURE if position == last and open_room else track[position]
            opened, rewards = False, nothing
            if cell == KEY and action == PICK_KEY:
                keys += 1
            elif (cell, action) in ((APPLE_LEFT, PICK_LEFT), (APPLE_RIGHT, PICK_RIGHT)):
                rewards = apples
            elif cell == DOOR and keys == self.num_keys:
                opened = self.ignore_door or action == OPEN_DOOR
            if opened if self.treasure_at_door else cell == TREASURE:
                rewards = treasure
            after = (position + 1, keys, open_room or opened)
            return [Outcome(p, r, after) for p, r in rewards]

        def observe(state: Any) -> list[float]:
            position, keys, open_room = state
            here = min(position, last)
            cell = TREASURE if here == last and open_room else track[here]
            row = [position / self.length] + [0.0] * (7 + self.num_keys)
            row[1 + cell] = row[7 + keys] = 1.0
            return row

        return Model(
            start=[(1.0, (0, 0, False))],
            outcomes=outcomes,
            observe=observe,
            is_terminal=lambda state: state[0] >= self.length,
            num_actions=4,
            horizon=self.length,
            reward_values=self.reward_values(params),
        )

    def _cell_probs(self) -> list[float]:
        return [
            1.0 - self.distractor_prob,
            0.5 * self.distractor_prob,
            0.5 * self.distractor_prob,
        ]


def _draw(key: Array, values: Array, logits: Array, happens: Array) -> Array:
    return jnp.where(happens, values[jax.random.categorical(key, logits)], 0.0)


def _distribution(values: Array, logits: Array) -> list[tuple[float, float]]:
    scaled = np.asarray(logits, np.float64)
    weights = np.exp(scaled - scaled.max())
    probs = (weights / weights.sum()).tolist()
    return [(p, v) for p, v in zip(probs, np.asarray(values).tolist(), strict=True) if p > 0]
