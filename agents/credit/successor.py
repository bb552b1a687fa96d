"""Contribution coefficients from successor counts, learned by temporal differences.

COCOA (arXiv 2306.16803), section on contribution coefficients: their numerator is M(s, a, u) = Σ_{k ≥ 1}
p(U_{t+k} = u | s, a), the successor representation (Dayan 1993) of outcomes. Here

    log M(s, a, u) = level(s, u) + log ratio(s, a, u),   Σ_a π(a | s) ratio = 1,

so that exp(level) is the policy's mean of M, and ratio = w + 1 is `hindsight.classification_ratio` of the same
network. One network for log M has the same optimum, but counts grow as the policy improves, and it learns so
first of the actions that are taken often: these would seem to contribute. The classes must be listed
beforehand; of outcomes that are known because they occurred every count is at least 1. Letters: T steps,
K outcomes, A actions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from agents.credit.targets import lambda_sums
from agents.credit.trajectory import Trajectory


def successor_targets(
    trajectory: Trajectory, member: Float[Array, "T K"], value: Float[Array, "T K"], lam: float
) -> Float[Array, "T K"]:
    """N_t = 1(U_{t+1} = u) + (1 − λ) v_{t+1} + λ N_{t+1}, zero after the end: TD(λ) for M(S_t, A_t, u).

    With λ = 1 they are the later counts themselves. Without meaning where `has_target` is not.

    Args:
        member: 1 where step t has outcome k.
        value: v_t = Σ_a π(a | S_t) M(S_t, a, u), the counts to expect after step t.
        lam: λ.
    """
    follows = _next(trajectory.alive)[:, None]
    counted = _next(member * trajectory.alive[:, None])
    # A step at which the episode is cut has an outcome, but no target: its value stands for what follows.
    last = ~_next(has_target(trajectory))
    return lambda_sums(counted, follows * _next(value), last, lam)


def has_target(trajectory: Trajectory) -> Bool[Array, " T"]:
    """Whether it is known what came after step t: not at the last step of an episode that is cut."""
    alive = trajectory.alive > 0
    return alive & (trajectory.terminated | _next(alive))


def successor_loss(
    x: Float[Array, "T K A"],
    level: Float[Array, "T K"],
    trajectory: Trajectory,
    member: Float[Array, "T K"],
    lam: float,
) -> Float[Array, ""]:
    """(1/T) Σ_t Σ_u [M − N_t log M](S_t, A_t, u): least where M is the mean of N_t.

    The Poisson deviance without what is constant in M, under which M stays above 0. Targets come from `level`
    itself, held constant, which are the parameters before a gradient step.

    Args:
        x: log ratio up to a constant for each step and outcome.
        level: log Σ_a π(a | S_t) M(S_t, a, u).
        member: 1 where step t has outcome k.
        lam: λ.
    """
    targets = successor_targets(trajectory, member, jax.lax.stop_gradient(jnp.exp(level)), lam)
    mean = jax.nn.logsumexp(x + trajectory.log_policy[:, None], axis=-1)
    log_m = level + jnp.einsum("tka,ta->tk", x, trajectory.taken) - mean
    # Not the mean over the steps of this episode: steps of short episodes, which have smaller counts, would
    # weigh more, and the mean of the targets would not be M.
    weight = has_target(trajectory).astype(x.dtype)[:, None] / x.shape[0]
    return jnp.sum(weight * (jnp.exp(log_m) - targets * log_m))


def _next(x: Array) -> Array:
    """x[t + 1], zero or False at the end."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])
