"""Policy-gradient estimators as contribution tables.

Every estimator turns one trajectory into C[t, a], and the gradient is always

    ĝ = Σ_t alive_t Σ_a C[t, a] ∇π(a | S_t)                      (`all_actions_objective`)

so that learned and exact models, training and measurement share everything else. Terms of the taken
action are C[t, A_t] = x_t / π(A_t | S_t), because ∇π / π = ∇log π. COCOA (arXiv 2306.16803),
section 2 and appendix. Letters: T steps, A actions, K outcomes. One trajectory; `vmap` batches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit.trajectory import Trajectory


def future_sums(x: Float[Array, "T *k"]) -> Float[Array, "T *k"]:
    """Σ_{t' > t} x[t']."""
    later = jax.lax.cumsum(x, axis=0, reverse=True)
    return jnp.concatenate([later[1:], jnp.zeros_like(later[:1])])


def returns_to_go(trajectory: Trajectory) -> Float[Array, " T"]:
    """Z_t = Σ_{t' ≥ t} R_t'."""
    return jax.lax.cumsum(trajectory.reward * trajectory.alive, reverse=True)


def on_taken_action(trajectory: Trajectory, amount: Float[Array, " T"]) -> Float[Array, "T A"]:
    """Table of the score-function term ∇log π(A_t | S_t) x_t."""
    # 1/π of an action that was not taken may be infinite, and 0 times that is not a number. (A where
    # would do, but rounds differently once compiled.)
    inverse = jnp.exp(jnp.minimum(-trajectory.log_policy, 80.0))
    return trajectory.taken * inverse * amount[:, None]


def reinforce(trajectory: Trajectory) -> Float[Array, "T A"]:
    """REINFORCE: ∇log π(A_t | S_t) Z_t."""
    return on_taken_action(trajectory, returns_to_go(trajectory))


def advantage(trajectory: Trajectory, v: Float[Array, " T"]) -> Float[Array, "T A"]:
    """Advantage: ∇log π(A_t | S_t) (Z_t − V(S_t)); unbiased for any V."""
    return on_taken_action(trajectory, returns_to_go(trajectory) - v)


def q_critic(trajectory: Trajectory, q: Float[Array, "T A"]) -> Float[Array, "T A"]:
    """Q-critic: Σ_a ∇π(a | S_t) Q(S_t, a), with Σ_a π Q as baseline (the gradient is the same)."""
    return q - jnp.sum(jnp.exp(trajectory.log_policy) * q, axis=1, keepdims=True)


def trajectory_cv(trajectory: Trajectory, q: Float[Array, "T A"]) -> Float[Array, "T A"]:
    """TrajCV (Cheng, Yan, Boots 2020): ∇log π(A_t | S_t) [Z_t − Q(S_t, A_t) − Σ_{t' > t} (Q(S_t', A_t')
    − V(S_t'))] + Σ_a ∇π(a | S_t) Q(S_t, a), V = Σ_a π Q; unbiased for any Q."""
    q = q * trajectory.alive[:, None]
    taken = jnp.sum(trajectory.taken * q, axis=1)
    v = jnp.sum(jnp.exp(trajectory.log_policy) * q, axis=1)
    rest = returns_to_go(trajectory) - taken - future_sums(taken - v)
    return on_taken_action(trajectory, rest) + q


def contributions(
    trajectory: Trajectory, w: Float[Array, "T K A"], member: Float[Array, "T K"]
) -> Float[Array, "T A"]:
    """Σ_{t' > t} w(S_t, a, U_t') R_t' at a cost of T K A.

    Args:
        w: coefficients of every step, outcome and action.
        member: 1 where step t has outcome k. Outcomes = steps (K = T, the identity) is the general
            case, K reward classes the cheap one.
    """
    paid = (trajectory.reward * trajectory.alive)[:, None] * member
    return jnp.einsum("tka,tk->ta", w, future_sums(paid))


def cocoa(
    trajectory: Trajectory, w: Float[Array, "T K A"], member: Float[Array, "T K"]
) -> Float[Array, "T A"]:
    """COCOA, and HCA+ where outcomes are states (eq. 4): ∇log π(A_t | S_t) R_t + Σ_a ∇π(a | S_t)
    Σ_{t' > t} w(S_t, a, U_t') R_t'."""
    immediate = on_taken_action(trajectory, trajectory.reward * trajectory.alive)
    return immediate + contributions(trajectory, w, member)


def hca(
    trajectory: Trajectory,
    w: Float[Array, "T K A"],
    member: Float[Array, "T K"],
    reward_model: Float[Array, "T A"],
) -> Float[Array, "T A"]:
    """Original HCA (Harutyunyan et al. 2019), which models the immediate reward: r̂(S_t, a) + Σ_{t' > t}
    (w + 1) R_t'. The 1 is left out: it is the same for all actions."""
    return reward_model + contributions(trajectory, w, member)


def hca_return(trajectory: Trajectory, ratio: Float[Array, "T A"]) -> Float[Array, "T A"]:
    """HCA-return: ∇log π(A_t | S_t) (1 − π/h(A_t | S_t, Z_t)) Z_t. Biased even with the exact h,
    unless every return may follow on every action.

    Args:
        ratio: h(a | S_t, Z_t) / π(a | S_t).
    """
    of_taken = jnp.sum(trajectory.taken * ratio, axis=1)
    return on_taken_action(trajectory, (1.0 - 1.0 / of_taken) * returns_to_go(trajectory))


def counterfactual_return(
    trajectory: Trajectory, ratio: Float[Array, "T A"]
) -> Float[Array, "T A"]:
    """Counterfactual return (appendix F.3): Σ_a ∇π(a | S_t) (h(a | S_t, Z_t)/π(a | S_t) − 1) Z_t."""
    return (ratio - 1.0) * returns_to_go(trajectory)[:, None]


def sample_actions(
    key: PRNGKeyArray,
    summed: Float[Array, "T A"],
    log_policy: Float[Array, "T A"],
    samples: int,
) -> Float[Array, "T A"]:
    """Replace Σ_a ∇π(a) X[t, a] by a mean over M fresh actions of ∇log π(a_m) X[t, a_m] (eq. 27).

    The executed action is not reused, which would bias the estimate.
    """
    drawn = jax.random.categorical(key, log_policy, axis=-1, shape=(samples, log_policy.shape[0]))
    counts = jnp.sum(jax.nn.one_hot(drawn, log_policy.shape[1], dtype=summed.dtype), axis=0)
    return jnp.where(counts > 0, summed * counts * jnp.exp(-log_policy) / samples, 0.0)


def discounted_reinforce(trajectory: Trajectory, discount: float) -> Float[Array, "T A"]:
    """Temporal discounting as a heuristic for contributions (eq. 1): Σ_t R_t Σ_{k ≤ t} γ^{t−k}
    ∇log π(A_k | S_k)."""

    def back(z: Array, reward: Array) -> tuple[Array, Array]:
        z = reward + discount * z
        return z, z

    rewards = trajectory.reward * trajectory.alive
    _, returns = jax.lax.scan(back, jnp.zeros_like(rewards[0]), rewards, reverse=True)
    return on_taken_action(trajectory, returns)


def all_actions_objective(
    log_policy: Float[Array, "T A"], table: Float[Array, "T A"], weight: Float[Array, " T"]
) -> Float[Array, ""]:
    """Σ_t weight_t Σ_a π(a | S_t) C[t, a], with C constant: its gradient is the estimate.

    Args:
        log_policy: under the parameters that are differentiated.
        weight: the alive mask, divided by T for the mean that training uses, or zero after t = 0.
    """
    table = jax.lax.stop_gradient(table)
    return jnp.sum(weight[:, None] * jnp.exp(log_policy) * table)
