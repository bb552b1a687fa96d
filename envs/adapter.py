"""The only file that unpacks gymnax: its environments as functions that return a `TimeStep`.

Functions act on one environment, with unbatched keys, states and actions; `vmap` batches them.
`env` is static, everything else is a pytree.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments.environment import Environment
from jaxtyping import Array, Bool, Float, PRNGKeyArray


@struct.dataclass
class TimeStep:
    """What a learner sees after a reset or a step.

    Attributes:
        obs: the observation to act on next; after an auto-reset the first one of the new episode.
        reward: of this step; 0 after a reset.
        terminated: the episode ended by itself, so the value of what follows is zero.
        truncated: the step limit was reached. Both flags can be set; `terminated` then decides
            about the value of what follows, and either one ends the episode.
        final_obs: the observation that this step led to, before any auto-reset. Bootstrap from it
            where `truncated & ~terminated`. Equal to `obs` where the episode goes on.
        info: whatever else the environment reports, {} after a reset.
    """

    obs: Any
    reward: Float[Array, "*b"]
    terminated: Bool[Array, "*b"]
    truncated: Bool[Array, "*b"]
    final_obs: Any
    info: dict[Any, Any]

    @property
    def done(self) -> Bool[Array, "*b"]:
        """The episode is over, for whichever reason."""
        return self.terminated | self.truncated


def reset(env: Environment, key: PRNGKeyArray, params: Any) -> tuple[Any, TimeStep]:
    """Start an episode. Returns the state and its first time step."""
    obs, state = env.reset_env(key, params)
    return state, first(obs)


def first(obs: Any, batch_shape: tuple[int, ...] = ()) -> TimeStep:
    """The time step of a reset, for callers that made `obs` otherwise (such as `reset_to`)."""
    false = jnp.zeros(batch_shape, bool)
    zero = jnp.zeros(batch_shape, jnp.float32)
    return TimeStep(obs=obs, reward=zero, terminated=false, truncated=false, final_obs=obs, info={})


def step(
    env: Environment, key: PRNGKeyArray, state: Any, action: Any, params: Any
) -> tuple[Any, TimeStep]:
    """One transition without auto-reset: `obs` and `final_obs` are the same."""
    obs, state, reward, terminated, info = env.step_env(key, state, action, params)
    truncated = env.is_truncated(state, params)
    return state, _time_step(obs, reward, terminated, truncated, obs, info)


def auto_reset_step(
    env: Environment, key: PRNGKeyArray, state: Any, action: Any, params: Any
) -> tuple[Any, TimeStep]:
    """One transition; if it ends the episode, the state and `obs` are those of a fresh one."""
    obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
    info = dict(info)
    final_obs = info.pop("final_observation")
    del info["terminated"], info["truncated"]  # copies of the flags
    return state, _time_step(obs, reward, terminated, truncated, final_obs, info)


def _time_step(
    obs: Any, reward: Any, terminated: Any, truncated: Any, final_obs: Any, info: dict[Any, Any]
) -> TimeStep:
    # Some environments return Python or integer scalars; documented dtypes are enforced here.
    return TimeStep(
        obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated, bool),
        truncated=jnp.asarray(truncated, bool),
        final_obs=final_obs,
        info=jax.tree.map(jnp.asarray, info),
    )
