"""Trajectories: a random one, and enumerated paths; and moments of gradients over them."""

import jax
import jax.numpy as jnp
import numpy as np

from agents.credit import estimators
from agents.credit.trajectory import Trajectory, from_paths
from envs.credit.enumeration import enumerate_paths


def trajectory(reward, steps=5, actions=3, done_at=None, seed=0):
    """One random episode with these rewards, which ends by itself before step `done_at`."""
    rng = np.random.default_rng(seed)
    done_at = steps if done_at is None else done_at
    logits = jnp.asarray(rng.normal(size=(steps, actions)), jnp.float32)
    return Trajectory(
        obs=jnp.asarray(rng.normal(size=(steps + 1, 4)), jnp.float32),
        action=jnp.asarray(rng.integers(actions, size=steps), jnp.int32),
        reward=jnp.asarray(reward, jnp.float32),
        log_policy=jax.nn.log_softmax(logits),
        done=jnp.arange(steps + 1) >= done_at,
        terminated=jnp.arange(1, steps + 1) == done_at,
    )


def trajectories(mdp, policy, size=1296):
    """Every trajectory [N, ...], its states [N, T] and its probability [N].

    Padded to `size` with repetitions of the first path, of probability zero, so that random MDPs
    share one compiled program.
    """
    paths = enumerate_paths(mdp)
    missing = max(size - len(paths.weight), 0)
    pad = lambda x: np.concatenate([x, np.repeat(x[:1], missing, axis=0)])  # noqa: E731
    paths = jax.tree.map(pad, paths)
    paths.weight[len(paths.weight) - missing :] = 0.0
    return _trajectories(mdp, paths, policy)


@jax.jit
def _trajectories(mdp, paths, policy):
    states = jnp.asarray(paths.states)[:, :-1]
    return from_paths(mdp, paths, policy), states, paths.probability(policy)


def gradients(logits, batch, states, tables, first_only=False):
    """Gradient of tabular logits [N, S, A] of every path, from tables [N, T, A]."""

    def one(trajectory, states, table):
        weight = trajectory.alive
        if first_only:
            weight = weight.at[1:].set(0.0)

        def objective(logits):
            log_policy = jax.nn.log_softmax(logits)[states]
            return estimators.all_actions_objective(log_policy, table, weight)

        return jax.grad(objective)(logits)

    return jax.vmap(one)(batch, states, tables)


def mean(probability, x):
    return jnp.tensordot(probability, x, axes=1)


def covariance(probability, x):
    """Covariance [P, P] of flattened gradients under the path probabilities."""
    flat = x.reshape(x.shape[0], -1)
    centred = flat - (probability @ flat)[None]
    return jnp.einsum("n,np,nq->pq", probability, centred, centred)
