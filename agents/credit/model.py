"""The one interface of learned and exact credit models, and what they know of the world.

A training loop, the shadow comparison and the gradient metrics see nothing but a `CreditModel`; a new
estimator is one more function that returns one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit import estimators
from agents.credit.trajectory import LogPolicy, Trajectory
from envs.credit.mdp import FiniteMDP

IGNORED = ("unmatched_rewards", "unknown_states")
"""Counts in a model's metrics of what it cannot credit: rewards without an outcome, and (exact models)
observations that no state has."""


@dataclass(frozen=True)
class WorldSpec:
    """What a model needs to know of its environment.

    Attributes:
        obs_dim, num_actions: D and A.
        reward_values: every possible reward, zero first.
    """

    obs_dim: int
    num_actions: int
    reward_values: tuple[float, ...]


@dataclass(frozen=True)
class CreditModel:
    """An estimator with its model of the world.

    Attributes:
        init: key -> state of the model, a pytree.
        update: (state, batch of trajectories, acting policy, key) -> (state, metrics).
        table: (state, one trajectory, key) -> C[t, a], see `estimators`.
        expected_advantage: (state, MDP, π [S, A]) -> E[Â(s, a)] [S, A], which gives the estimator's
            exact bias.
    """

    init: Callable[[PRNGKeyArray], Any]
    update: Callable[[Any, Trajectory, LogPolicy, PRNGKeyArray], tuple[Any, dict[str, Array]]]
    table: Callable[[Any, Trajectory, PRNGKeyArray], Float[Array, "T A"]]
    expected_advantage: Callable[[Any, FiniteMDP, Float[Array, "S A"]], Float[Array, "S A"]]


def contribution_table(
    trajectory: Trajectory,
    contributions: Float[Array, "T A"],
    key: PRNGKeyArray,
    samples: int,
    reward_model: Float[Array, "T A"] | None = None,
) -> Float[Array, "T A"]:
    """COCOA's table (`estimators.cocoa`), or original HCA's with a reward model (`estimators.hca`); with
    `samples` > 0 the sum over actions is sampled.

    Args:
        contributions: of each action to later rewards, as of `estimators.contributions`.
    """
    if reward_model is None:
        immediate = estimators.on_taken_action(trajectory, trajectory.reward * trajectory.alive)
        summed = contributions
    else:
        immediate = jnp.zeros_like(reward_model)
        summed = reward_model + contributions
    if samples > 0:
        summed = estimators.sample_actions(key, summed, trajectory.log_policy, samples)
    return immediate + summed


def batch_mean(function: Callable[..., Array], *batch: Any) -> Array:
    """Mean of a function of one trajectory over a batch: trajectories count equally."""
    return jnp.mean(jax.vmap(function)(*batch))


def one_at_a_time(function: Callable) -> Callable:
    """`function`, whose vmap is a loop on the CPU, for what fills a core's cache with one seed. Several at
    once would not fit; what is small is cheaper vmapped. Not differentiable where it is vmapped."""
    if jax.default_backend() == "cpu":
        return jax.custom_batching.sequential_vmap(function)
    return function


def zero_counts(*names: str) -> dict[str, Array]:
    """Counts that a model has nothing to say about."""
    return {name: jnp.int32(0) for name in names}
