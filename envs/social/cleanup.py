"""CleanUp-lite: two players share an orchard that only grows while somebody cleans the river (COALA, App. B).

Cells are numbered row * columns + column. The left border column is the orchard, the right one the river. Fields named
as choices are those that the paper leaves open.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from envs.social.game import SocialStep

RIGHT, LEFT, UP, DOWN, ZAP, STAY = range(6)
_MOVES = np.array([[0, 1], [0, -1], [-1, 0], [1, 0], [0, 0], [0, 0]], np.int32)
EMPTY, APPLE, DIRT = range(3)


@struct.dataclass
class CleanUpState:
    """State of one inner episode.

    Attributes:
        position: row and column of each player.
        frozen: steps that each player still has to sit out.
        objects: EMPTY, APPLE or DIRT in every cell, row by row.
    """

    position: Int[Array, "2 2"]
    frozen: Int[Array, "2"]
    objects: Int[Array, " cells"]


@dataclass(frozen=True)
class CleanUp:
    """CleanUp-lite.

    Action: int32 in 0..5: right, left, up, down, zap, stay.
    Observation: int8[cells + 4] per player, itself first: own cell, the other's cell, own and the other's frozen flag,
        then the cells' objects; encoded as one-hot grids of length 2 · cells + 3 · cells + 2 (102 on 5 × 4).
    Reward: 1 per apple eaten. Zapping and being zapped cost nothing.
    Info: "zapped", "cleaned" [2] (0 or 1), "dirt", "apples" (cells, after the step).
    Ends after `episode_length` steps, never earlier.

    A step in this order: dirt, apple, eat, clean, zap, move.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    rows: int = 5
    columns: int = 4
    episode_length: int = 64
    dirt_probability: float = 0.35
    """That one clean river cell becomes dirty in a step."""
    dirt_limit: int = 3
    """No apple grows while this many river cells are dirty."""
    initial_dirt: int = 3
    zap_probability: float = 0.9
    zap_range: int = 2
    freeze_steps: int = 5
    """Steps after the zap in which the victim neither acts, eats nor cleans."""
    distance: Literal["chebyshev", "manhattan"] = "chebyshev"
    """How the zap's range is measured. Not given in the paper."""
    shared_apple: Literal["random", "first"] = "random"
    """Who eats where both stand on one apple. Not given in the paper."""

    def __post_init__(self) -> None:
        lowest = {
            **dict.fromkeys(("rows", "episode_length", "dirt_limit"), 1),
            **dict.fromkeys(("initial_dirt", "zap_range", "freeze_steps"), 0),
            "columns": 2,
        }
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: at least {least}")
        if self.rows * self.columns > 127:
            raise ValueError(
                f"rows * columns is {self.rows * self.columns}; allowed: at most 127 (observations are int8)"
            )
        if self.initial_dirt > self.rows:
            raise ValueError(
                f"initial_dirt is {self.initial_dirt}; allowed: 0 to {self.rows}, the river's cells"
            )
        for name in ("dirt_probability", "zap_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: in [0, 1]")
        for name, allowed in (
            ("distance", ("chebyshev", "manhattan")),
            ("shared_apple", ("random", "first")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}"
                )

    @property
    def num_players(self) -> int:
        return 2

    @property
    def num_actions(self) -> int:
        return 6

    @property
    def num_observations(self) -> int:
        return 0

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.rows * self.columns

    @property
    def obs_dim(self) -> int:
        return 5 * self.num_cells + 2

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def orchard(self) -> np.ndarray:
        """Cells of the left border column [rows]."""
        return np.arange(self.rows, dtype=np.int32) * self.columns

    @property
    def river(self) -> np.ndarray:
        """Cells of the right border column [rows]."""
        return self.orchard + self.columns - 1

    def reset(self, key: PRNGKeyArray) -> tuple[CleanUpState, Int[Array, "2 o"]]:
        """Players on uniform random cells (which may be the same), no apples, `initial_dirt` dirty river cells."""
        key_position, key_dirt = jax.random.split(key)
        cell = jax.random.randint(key_position, (2,), 0, self.num_cells)
        position = jnp.stack([cell // self.columns, cell % self.columns], axis=1)
        order = jax.random.permutation(key_dirt, jnp.asarray(self.river))
        objects = jnp.zeros((self.num_cells,), jnp.int32).at[order[: self.initial_dirt]].set(DIRT)
        state = CleanUpState(position, jnp.zeros((2,), jnp.int32), objects)
        return state, self._observe(state)

    def step(
        self, key: PRNGKeyArray, state: CleanUpState, actions: Int[Array, "2"]
    ) -> tuple[CleanUpState, SocialStep]:
        """One step of both players; frozen ones stay where they are, whatever their action."""
        key_dirt, key_apple, key_eat, key_zap = jax.random.split(key, 4)
        active = state.frozen == 0
        objects = self._spawn(
            key_dirt, state.objects, self.river, DIRT, jnp.float32(self.dirt_probability)
        )
        dirt = jnp.sum(objects == DIRT).astype(jnp.float32)
        grows = 1 - jnp.minimum(1.0, dirt / self.dirt_limit)
        objects = self._spawn(key_apple, objects, self.orchard, APPLE, grows)

        cell = state.position[:, 0] * self.columns + state.position[:, 1]
        under = objects[cell]
        ate = self._eaters(key_eat, active & (under == APPLE), cell)
        cleaned = active & (under == DIRT)
        # No scatter: where both stand on one cell, its last word may be that of the one who got nothing.
        here = cell[:, None] == jnp.arange(self.num_cells)[None]
        taken = jnp.any((ate | cleaned)[:, None] & here, axis=0)
        objects = jnp.where(taken, EMPTY, objects)

        gap = jnp.abs(state.position[0] - state.position[1])
        reach = jnp.max(gap) if self.distance == "chebyshev" else jnp.sum(gap)
        hits = jax.random.uniform(key_zap, (2,)) < self.zap_probability
        zaps = active & (actions == ZAP) & hits & (reach <= self.zap_range)
        zapped = zaps[::-1] & active  # who is frozen already cannot be zapped again
        frozen = jnp.where(zapped, self.freeze_steps, jnp.maximum(state.frozen - 1, 0))

        # Zapping comes before moving, so a victim no longer moves.
        moves = active & ~zapped if self.freeze_steps else active
        target = state.position + jnp.asarray(_MOVES)[actions]
        limits = jnp.array([[self.rows - 1, self.columns - 1]], jnp.int32)
        target = jnp.clip(target, 0, limits)
        position = jnp.where(moves[:, None], target, state.position)
        state = CleanUpState(position, frozen, objects)
        info = {
            "zapped": zapped.astype(jnp.float32),
            "cleaned": cleaned.astype(jnp.float32),
            "dirt": jnp.sum(objects == DIRT).astype(jnp.float32),
            "apples": jnp.sum(objects == APPLE).astype(jnp.float32),
        }
        return state, SocialStep(self._observe(state), ate.astype(jnp.float32), info)

    def encode(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """One-hot grids of both positions and of every cell's object, and the frozen flags."""
        obs = obs.astype(jnp.int32)
        positions = jax.nn.one_hot(obs[..., :2], self.num_cells)
        objects = jax.nn.one_hot(obs[..., 4:], 3)
        lead = obs.shape[:-1]
        flags = obs[..., 2:4].astype(jnp.float32)
        return jnp.concatenate(
            [positions.reshape(*lead, -1), objects.reshape(*lead, -1), flags], axis=-1
        )

    def _observe(self, state: CleanUpState) -> Int[Array, "2 o"]:
        cell = state.position[:, 0] * self.columns + state.position[:, 1]
        flags = (state.frozen > 0).astype(jnp.int32)
        own_first = jnp.stack(
            [jnp.concatenate([cell, flags]), jnp.concatenate([cell[::-1], flags[::-1]])]
        )
        objects = jnp.broadcast_to(state.objects[None], (2, self.num_cells))
        return jnp.concatenate([own_first, objects], axis=1).astype(jnp.int8)

    def _spawn(
        self,
        key: PRNGKeyArray,
        objects: Int[Array, " cells"],
        cells: np.ndarray,
        what: int,
        probability: Float[Array, ""],
    ) -> Int[Array, " cells"]:
        """With `probability` put `what` on one uniformly chosen empty cell of `cells`, if there is one."""
        key_whether, key_where = jax.random.split(key)
        free = objects[cells] == EMPTY
        scores = jnp.where(free, jax.random.uniform(key_where, cells.shape), -1.0)
        chosen = jnp.asarray(cells)[jnp.argmax(scores)]
        spawns = jnp.any(free) & (jax.random.uniform(key_whether) < probability)
        return objects.at[chosen].set(jnp.where(spawns, what, objects[chosen]))

    def _eaters(
        self, key: PRNGKeyArray, on_apple: Bool[Array, "2"], cell: Int[Array, "2"]
    ) -> Bool[Array, "2"]:
        contested = jnp.all(on_apple) & (cell[0] == cell[1])
        winner = jax.random.bernoulli(key) if self.shared_apple == "random" else jnp.bool_(False)
        wins = jnp.stack([~winner, winner])
        return on_apple & (wins | ~contested)
