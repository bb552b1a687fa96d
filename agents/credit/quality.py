"""Bias, variance and signal-to-noise ratio of an estimator's gradients, against exact ones.

COCOA (arXiv 2306.16803), section 4 and appendix: with g the exact gradient, ḡ the exact mean of the
estimator with its present model and ĝ_i gradients of single trajectories,

    SNR = ‖g‖² / mean ‖ĝ_i − g‖²,  variance = mean ‖ĝ_i − ḡ‖² / ‖g‖²,  bias = ‖ḡ − g‖² / ‖g‖².

The entropy bonus is left out. Meaningful only if the measured policy is the acting one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit import estimators
from agents.credit.model import CreditModel
from agents.credit.policy import Policy
from agents.credit.train import tables_of
from agents.credit.trajectory import Trajectory
from envs.credit import exact
from envs.credit.mdp import FiniteMDP


def flat_gradients(
    policy: Policy,
    params: Any,
    epsilon: float,
    batch: Trajectory,
    tables: Float[Array, "N T A"],
    first_state_only: bool,
) -> Float[Array, "N P"]:
    """Gradient of each trajectory with respect to all parameters in a row."""

    def one(trajectory: Trajectory, table: Array) -> Array:
        steps = 1 if first_state_only else trajectory.action.shape[0]

        def objective(params: Any) -> Array:
            log_policy = policy.acting(params, epsilon)(trajectory.obs[:steps])
            return estimators.all_actions_objective(
                log_policy, table[:steps], trajectory.alive[:steps]
            )

        return _flatten(jax.grad(objective)(params))

    return jax.vmap(one)(batch, tables)


def gradient_quality(
    policy: Policy,
    params: Any,
    epsilon: float,
    model: CreditModel,
    credit: Any,
    batch: Trajectory,
    mdp: FiniteMDP,
    key: PRNGKeyArray,
    first_state_only: bool,
) -> dict[str, Array]:
    """Metrics in decibels, and cosines with the exact gradient, from N trajectories of `batch`.

    `bias_db` is −inf for an unbiased estimator.
    """

    def table(params: Any) -> Array:
        obs = jnp.asarray(mdp.observations)
        return jnp.exp(policy.acting(params, epsilon)(obs))

    pi = table(params)
    values = exact.values(mdp, pi)
    gradient = lambda advantage: _flatten(  # noqa: E731
        exact.expected_gradient(mdp, table, params, advantage, first_state_only)
    )
    truth = gradient(values.q - values.v[:, None])
    expected = gradient(model.expected_advantage(credit, mdp, pi))
    tables = tables_of(model, credit, batch, key)
    single = flat_gradients(policy, params, epsilon, batch, tables, first_state_only)
    return ratios(truth, expected, single)


def ratios(
    truth: Float[Array, " P"],
    expected: Float[Array, " P"],
    single: Float[Array, "N P"],
    weight: Float[Array, " N"] | None = None,
) -> dict[str, Array]:
    """The metrics above; `weight` holds path probabilities where all trajectories are enumerated."""
    if weight is None:
        weight = jnp.full(single.shape[:1], 1.0 / single.shape[0], single.dtype)
    power = jnp.sum(jnp.square(truth))
    spread = lambda centre: weight @ jnp.sum(jnp.square(single - centre[None]), axis=1)  # noqa: E731
    decibel = lambda x: 10.0 * jnp.log10(x)  # noqa: E731
    return {
        "snr_db": decibel(power / spread(truth)),
        "variance_db": decibel(spread(expected) / power),
        "bias_db": decibel(jnp.sum(jnp.square(expected - truth)) / power),
        "cosine_expected": _cosine(expected, truth),
        "cosine_sampled": _cosine(weight @ single, truth),
        "gradient_norm": jnp.sqrt(power),
    }


def _cosine(x: Array, y: Array) -> Array:
    scale = jnp.linalg.norm(x) * jnp.linalg.norm(y)
    return jnp.sum(x * y) / jnp.where(scale > 0, scale, 1.0)


def _flatten(tree: Any) -> Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
