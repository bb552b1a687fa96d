"""What a game for several players looks like to a learner.

Not a gymnax `Environment`: gymnax knows one player, and here every observation and reward has a player axis. Adding a
game means writing one class with the members of `SocialGame`. Letters: N players, A actions.
"""

from typing import Any, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped


@struct.dataclass
class SocialStep:
    """What the players see after a step.

    Attributes:
        obs: [N, ...], compact integers, one row per player, the player itself first in its own row.
        reward: [N], of this step.
        info: [N] or scalar numbers to watch, the same keys at every step.
    """

    obs: Shaped[Array, "N *o"]
    reward: Float[Array, " N"]
    info: dict[str, Any]


@runtime_checkable
class SocialGame(Protocol):
    """One inner episode of fixed length; instances are static and hashable, `vmap` batches the functions.

    Observations are stored as compact integers and turned into network inputs by `encode`, so that long meta-episodes
    fit into memory.
    """

    @property
    def num_players(self) -> int:
        """N."""
        ...

    @property
    def num_actions(self) -> int:
        """A, the same for every player."""
        ...

    @property
    def num_observations(self) -> int:
        """How many observations there are if one is a single integer, else 0 (no tabular policy then)."""
        ...

    @property
    def obs_dim(self) -> int:
        """Length of an encoded observation."""
        ...

    @property
    def episode_length(self) -> int:
        """T: steps of one inner episode."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether `reset` and `step` use their keys; if not, callers need not split any."""
        ...

    def reset(self, key: PRNGKeyArray) -> tuple[Any, Shaped[Array, "N *o"]]:
        """Start an inner episode: state and first observations."""
        ...

    def step(
        self, key: PRNGKeyArray, state: Any, actions: Int[Array, " N"]
    ) -> tuple[Any, SocialStep]:
        """Everybody acts at once."""
        ...

    def encode(self, obs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """Network inputs [..., obs_dim] from compact observations [..., *o]."""
        ...
