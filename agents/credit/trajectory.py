"""Episodes of a fixed number of steps, as every estimator takes them.

Letters: T steps, A actions, D observation entries. Functions act on one trajectory; `vmap` batches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from envs import adapter
from envs.credit.enumeration import Paths
from envs.credit.mdp import FiniteMDP

LogPolicy = Callable[[Float[Array, "*b D"]], Float[Array, "*b A"]]
"""Observations to normalised log-probabilities of the acting policy."""


@struct.dataclass
class Trajectory:
    """One episode. After its end the state stays as it is and rewards are 0.

    Attributes:
        obs: float[T + 1, D].
        action: int32[T].
        reward: float[T], caused by action[t] in obs[t].
        log_policy: float[T, A], log-probabilities under which action[t] was drawn.
        done: bool[T + 1]; done[0] is False, done[t + 1] says that the episode ended by step t.
        terminated: bool[T]; the episode ended by step t by itself, so that nothing follows.
    """

    obs: Float[Array, "*b T1 D"]
    action: Int[Array, "*b T"]
    reward: Float[Array, "*b T"]
    log_policy: Float[Array, "*b T A"]
    done: Bool[Array, "*b T1"]
    terminated: Bool[Array, "*b T"]

    @property
    def alive(self) -> Float[Array, "*b T"]:
        """1 where step t was taken before the episode's end, else 0."""
        return (~self.done[..., :-1]).astype(self.reward.dtype)

    @property
    def taken(self) -> Float[Array, "*b T A"]:
        """One-hot of the actions."""
        return jax.nn.one_hot(self.action, self.log_policy.shape[-1], dtype=self.reward.dtype)


def rollout(
    env: Any, params: Any, log_policy: LogPolicy, key: PRNGKeyArray, horizon: int
) -> tuple[Trajectory, dict[str, Array]]:
    """One episode of `horizon` steps, and the environment's `info` of its last step.

    Args:
        env, params: any gymnax environment with a vector observation; `env` is static.
        log_policy: the acting policy.
        key: for the start, the actions and the environment.
        horizon: T, static. An episode that is longer is cut, which is no termination.
    """
    reset_key, scan_key = jax.random.split(key)
    state, first = adapter.reset(env, reset_key, params)
    # One call without effect tells what `info` looks like.
    info = jax.eval_shape(lambda k, s: adapter.step(env, k, s, 0, params)[1].info, reset_key, state)
    info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)

    def step(carry: Any, step_key: PRNGKeyArray) -> tuple[Any, Any]:
        state, obs, done, info = carry
        action_key, env_key = jax.random.split(step_key)
        log_probs = log_policy(obs)
        action = jax.random.categorical(action_key, log_probs).astype(jnp.int32)
        next_state, after = adapter.step(env, env_key, state, action, params)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(done, o, n), new, old)  # noqa: E731
        out = {
            "obs": obs,
            "action": action,
            "reward": jnp.where(done, 0.0, after.reward),
            "log_policy": log_probs,
            "done": done,
            "terminated": after.terminated & ~done,
        }
        carry = (
            keep(next_state, state),
            keep(after.final_obs, obs),
            done | after.done,
            keep(after.info, info),
        )
        return carry, out

    start = (state, first.obs, jnp.array(False), info)
    (_, last_obs, last_done, info), steps = jax.lax.scan(
        step, start, jax.random.split(scan_key, horizon)
    )
    steps["obs"] = jnp.concatenate([steps["obs"], last_obs[None]])
    steps["done"] = jnp.concatenate([steps["done"], last_done[None]])
    return Trajectory(**steps), info


def rollouts(
    env: Any, params: Any, log_policy: LogPolicy, key: PRNGKeyArray, horizon: int, batch: int
) -> tuple[Trajectory, dict[str, Array]]:
    """`batch` independent episodes; every array gets a leading axis [B]."""
    keys = jax.random.split(key, batch)
    return jax.vmap(lambda k: rollout(env, params, log_policy, k, horizon))(keys)


def from_paths(mdp: FiniteMDP, paths: Paths, policy: Float[Array, "S A"]) -> Trajectory:
    """Enumerated paths as a batch of trajectories acted by `policy`."""
    states, done = jnp.asarray(paths.states), jnp.asarray(paths.done)
    return Trajectory(
        obs=jnp.asarray(mdp.observations)[states],
        action=jnp.asarray(paths.actions),
        reward=jnp.asarray(paths.rewards, policy.dtype),
        log_policy=jnp.log(policy)[states[:, :-1]],
        done=done,
        terminated=~done[:, :-1] & done[:, 1:],
    )
