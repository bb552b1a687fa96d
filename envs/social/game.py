"""What a game for several players looks like to a learner.

Not a gymnax `Environment`: gymnax knows one player, and here every observation and reward has a player axis. Adding a
game means writing one class with the members of `SocialGame`, in any file: `check_game` says whether it is one, and
`game.name` takes `file.py:CLASS`. Letters: N players, A actions.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
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


def check_game(game: Any) -> SocialGame:
    """`game`, if learners can play it: traced once, nothing is compiled.

    Raises:
        ValueError: naming the first wrong member, its value and what is allowed.
    """
    missing = [m for m in vars(SocialGame) if not m.startswith("_") and not hasattr(game, m)]
    if missing:
        raise ValueError(f"{_kind(game)} has no {', '.join(missing)}; allowed: all of SocialGame")
    if type(game).__hash__ is None:
        raise ValueError(
            f"{_kind(game)} cannot be hashed; allowed: frozen dataclasses and the like"
        )
    sizes = {
        "num_players": 2,
        "num_actions": 2,
        "num_observations": 0,
        "obs_dim": 1,
        "episode_length": 1,
    }
    for name, least in sizes.items():
        value = getattr(game, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; allowed: integers of at least {least}")
    n, key = game.num_players, jax.random.key(0)
    state, obs = jax.eval_shape(game.reset, key)
    _check_array("the observation of reset", obs, (n, *_tail(obs)), jnp.integer)
    if game.num_observations and obs.shape != (n,):
        raise ValueError(
            f"num_observations is {game.num_observations} with observations of shape {list(obs.shape)}; allowed: one "
            f"integer per player, [{n}], or num_observations 0"
        )
    actions = jax.ShapeDtypeStruct((n,), jnp.int32)
    after, step = jax.eval_shape(game.step, key, state, actions)
    if not isinstance(step, SocialStep):
        raise ValueError(f"step returns a {_kind(step)} with the state; allowed: SocialStep")
    if jax.tree.structure(after) != jax.tree.structure(state) or _types(after) != _types(state):
        raise ValueError(
            f"step turns a state {_types(state)} into {_types(after)}; allowed: the structure and types of reset's"
        )
    _check_array("the observation of step", step.obs, obs.shape, obs.dtype)
    _check_array("reward", step.reward, (n,), jnp.floating)
    for name, value in step.info.items():
        if value.shape not in ((), (n,)):
            raise ValueError(f"info['{name}'] has shape {list(value.shape)}; allowed: [] or [{n}]")
    if not game.stochastic:
        for name, arguments in {"reset": (key,), "step": (key, state, actions)}.items():
            if _uses_first(getattr(game, name), arguments):
                raise ValueError(
                    f"stochastic is False, but {name} uses its key, of which chains then share one; allowed: True"
                )
    _check_array("encode", jax.eval_shape(game.encode, obs), (n, game.obs_dim), jnp.floating)
    return game


def _check_array(what: str, x: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if not hasattr(x, "shape") or x.shape != shape or not jnp.issubdtype(x.dtype, dtype):
        found = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"a {_kind(x)}"
        kind = getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
        raise ValueError(f"{what} is {found}; allowed: {kind}{list(shape)}")


def _uses_first(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether anything in `function` reads its first argument."""
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    read = [x for equation in traced.eqns for x in equation.invars] + list(traced.outvars)
    return any(x is traced.invars[0] for x in read)


def _tail(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ())[1:])


def _types(tree: Any) -> str:
    return ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)) or "without arrays"


def _kind(x: Any) -> str:
    return type(x).__name__
