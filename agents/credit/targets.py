"""Targets of value functions on one trajectory; `vmap` batches them. Undiscounted. T steps, A actions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from agents.credit.trajectory import Trajectory


def lambda_targets(
    trajectory: Trajectory, next_value: Float[Array, " T"], lam: float
) -> Float[Array, " T"]:
    """G_t = R_t + (1 − λ) v_{t+1} + λ G_{t+1}, zero after a termination.

    Args:
        next_value: bootstrap value of what step t led to: V(S_{t+1}) gives TD(λ), max_a Q(S_{t+1}, a)
            Peng's Q(λ), Σ_a π Q expected-SARSA(λ). Where an episode is cut it is the last word.
        lam: λ.
    """
    value = jnp.where(trajectory.terminated, 0.0, next_value)
    return lambda_sums(trajectory.reward, value, trajectory.done[1:], lam)


def lambda_sums(
    amount: Float[Array, "T *k"], value: Float[Array, "T *k"], last: Bool[Array, " T"], lam: float
) -> Float[Array, "T *k"]:
    """G_t = x_t + (1 − λ) v_t + λ G_{t+1}, and x_t + v_t where nothing after step t counts.

    Args:
        amount: x, what is summed.
        value: v, what is believed to follow on x_t.
        last: where the sum ends.
        lam: λ.
    """

    def back(later: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        amount, value, last = step
        target = amount + jnp.where(last, value, (1.0 - lam) * value + lam * later)
        return target, target

    _, targets = jax.lax.scan(back, value[-1], (amount, value, last), reverse=True)
    return jax.lax.stop_gradient(targets)


def alive_share(trajectory: Trajectory) -> Float[Array, " T"]:
    """Weight of each step in a mean over the steps before the end."""
    return trajectory.alive / jnp.maximum(jnp.sum(trajectory.alive), 1.0)
