"""Matrix games for N players, by name or from a payoff table, and their iterated play with perfect monitoring.

In every dilemma action 0 is the cooperative one (C, stag, swerve). Payoffs are row player first.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from envs.social.game import SocialStep

Payoffs = tuple[Any, ...]
"""Nested tuples of shape [N, A, ..., A]: payoff of each player for each joint action."""


def symmetric(payoff: tuple[tuple[float, ...], ...]) -> Payoffs:
    """Two-player payoffs [2, A, A] from the row player's table [A, A]; the column player's is its transpose."""
    return (payoff, tuple(zip(*payoff, strict=True)))


PRISONERS_DILEMMA = symmetric(((1.0, -1.0), (2.0, 0.0)))
CLASSIC_DILEMMA = symmetric(((-1.0, -3.0), (0.0, -2.0)))
TWIN_DILEMMA = symmetric(((2.0, 0.0), (3.0, 1.0)))
STAG_HUNT = symmetric(((4.0, 0.0), (3.0, 2.0)))
CHICKEN = symmetric(((0.0, -1.0), (1.0, -10.0)))
COORDINATION = symmetric(((1.0, 0.0), (0.0, 1.0)))
ANTI_COORDINATION = symmetric(((0.0, 1.0), (1.0, 0.0)))
MATCHING_PENNIES: Payoffs = (((1.0, -1.0), (-1.0, 1.0)), ((-1.0, 1.0), (1.0, -1.0)))
SUBJECTIVE_ONLY: Payoffs = (  # (A, A) is a subjective embedded equilibrium, but no embedded one
    ((2.0, 0.0, 0.0), (7.0, 6.0, 1.0), (7.0, 1.0, 6.0)),
    ((2.0, 7.0, 7.0), (0.0, 1.0, 6.0), (0.0, 6.0, 1.0)),
)

GAMES: dict[str, Payoffs] = {
    "prisoners_dilemma": PRISONERS_DILEMMA,
    "classic_dilemma": CLASSIC_DILEMMA,
    "twin_dilemma": TWIN_DILEMMA,
    "stag_hunt": STAG_HUNT,
    "chicken": CHICKEN,
    "coordination": COORDINATION,
    "anti_coordination": ANTI_COORDINATION,
    "matching_pennies": MATCHING_PENNIES,
    "subjective_only": SUBJECTIVE_ONLY,
}


def check_payoffs(payoffs: Any) -> np.ndarray:
    """Payoffs as float64 [N, A, ..., A].

    Raises:
        ValueError: another shape, or a value that is no finite real number.
    """
    try:
        given = np.asarray(payoffs)
    except ValueError:
        raise ValueError("payoffs is ragged; allowed: shape [N, A, ..., A], N axes of A") from None
    if given.dtype.kind not in "iuf":
        raise ValueError(f"payoffs holds values of type {given.dtype}; allowed: real numbers")
    table = given.astype(np.float64)
    players = table.shape[0] if table.ndim else 0
    actions = table.shape[1:]
    if players < 2 or len(actions) != players or len(set(actions)) != 1 or actions[0] < 2:
        raise ValueError(
            f"payoffs has shape {list(table.shape)}; allowed: [N, A, ..., A] with N >= 2 axes of A >= 2 actions"
        )
    if not np.isfinite(table).all():
        raise ValueError("payoffs holds a number that is not finite; allowed: finite numbers")
    return table


def as_payoffs(payoffs: Any) -> Payoffs:
    """Payoffs of any nested sequence or array as nested tuples. Raises ValueError as `check_payoffs`."""

    def frozen(rows: Any) -> Any:
        return tuple(map(frozen, rows)) if isinstance(rows, list) else rows

    return frozen(check_payoffs(payoffs).tolist())


def payoffs_by_name(name: str) -> Payoffs:
    """One of `GAMES`. Raises ValueError with all names for an unknown one."""
    if name not in GAMES:
        raise ValueError(f"game is '{name}'; allowed: {', '.join(GAMES)}")
    return GAMES[name]


@dataclass(frozen=True)
class IteratedMatrixGame:
    """T rounds of one matrix game; everybody sees the last joint action, and nothing else (COALA, section 5).

    Observation: int32, 0 at the start, else 1 + index of the last joint action with one's own action first and the
        others in ascending order behind it; encoded as one-hot. For two players: start, CC, CD, DC, DD.
    Action: int32 in 0..A-1.
    Reward: the player's payoff.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    payoffs: Payoffs = PRISONERS_DILEMMA
    episode_length: int = 10

    def __post_init__(self) -> None:
        check_payoffs(self.payoffs)
        if self.episode_length < 1:
            raise ValueError(f"episode_length is {self.episode_length}; allowed: at least 1")

    @property
    def num_players(self) -> int:
        return len(self.payoffs)

    @property
    def num_actions(self) -> int:
        return len(self.payoffs[0])

    @property
    def num_observations(self) -> int:
        return 1 + self.num_actions**self.num_players

    @property
    def obs_dim(self) -> int:
        return self.num_observations

    @property
    def stochastic(self) -> bool:
        return False

    @property
    def table(self) -> np.ndarray:
        """Payoffs [N, A^N], joint actions in row-major order of players 0, 1, …."""
        table = np.asarray(self.payoffs, np.float64)
        return table.reshape(self.num_players, -1)

    def reset(self, key: PRNGKeyArray) -> tuple[tuple[()], Int[Array, " N"]]:
        """No state, and the start symbol for everybody."""
        del key
        return (), jnp.zeros((self.num_players,), jnp.int32)

    def step(
        self, key: PRNGKeyArray, state: tuple[()], actions: Int[Array, " N"]
    ) -> tuple[tuple[()], SocialStep]:
        """One round."""
        del key
        # A sum, not a matrix product: it fuses with what is around it.
        terms = actions.astype(jnp.int32)[:, None] * self._radices()
        obs = 1 + jnp.sum(terms, axis=0, dtype=jnp.int32)
        # float32 unless x64 is on, as everywhere in jax.
        table = jnp.asarray(self.table, jax.dtypes.canonicalize_dtype(np.float64))
        # Row 0 of the radices is player 0's own view, which is the table's order.
        reward = table[:, obs[0] - 1]
        return state, SocialStep(obs=obs, reward=reward, info={})

    def encode(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        return jax.nn.one_hot(obs, self.num_observations)

    def _radices(self) -> np.ndarray:
        """[N, N] with column i the place values of player i's view: own action highest, then the others."""
        n, a = self.num_players, self.num_actions
        radices = np.zeros((n, n), np.int32)
        for player in range(n):
            order = [player, *(other for other in range(n) if other != player)]
            for place, other in enumerate(order):
                radices[other, player] = a ** (n - 1 - place)
        return radices


def joint_actions(game: IteratedMatrixGame) -> np.ndarray:
    """All joint actions [A^N, N] in the order of `game.table`."""
    shape = (game.num_actions,) * game.num_players
    return np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=-1)
