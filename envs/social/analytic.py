"""The infinitely repeated two-player, two-action game between memory-1 policies, solved exactly (COALA, App. C).

A memory-1 policy is five logits φ = (start, CC, CD, DC, DD), the state named own action first; P(C) = σ(φ).
Functions act on one pair of policies; `vmap` batches them. They follow the dtype of the logits.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

STATES = ("start", "CC", "CD", "DC", "DD")
PAYOFFS = (1.0, -1.0, 2.0, 0.0)
"""Row player's payoff in CC, CD, DC, DD: the paper's R, S, T, P."""
CLASSIC_PAYOFFS = (-1.0, -3.0, 0.0, -2.0)
"""Payoffs of older opponent-shaping work, used there with γ = 0.96."""

# The second player names the states own action first, too, so CD and DC change places.
_SWAP = (0, 2, 1, 3)
Payoffs4 = tuple[float, float, float, float]


def joint_play(
    ego: Float[Array, "5"], other: Float[Array, "5"], discount: float
) -> Float[Array, "4"]:
    """Normalised discounted occupancy of CC, CD, DC, DD in the first player's naming; sums to 1.

    (1 − γ) (I − γ Mᵀ)^{-1} s_0. γ must be below 1, which makes the matrix strictly column-diagonally dominant; another
    one raises ValueError.
    """
    if not 0 <= discount < 1:
        raise ValueError(f"discount is {discount}; allowed: in [0, 1)")
    p, q = jax.nn.sigmoid(ego), jax.nn.sigmoid(other)
    p0, q0, p, q = p[0], q[0], p[1:], q[1:][jnp.array(_SWAP)]
    start = jnp.stack([p0 * q0, p0 * (1 - q0), (1 - p0) * q0, (1 - p0) * (1 - q0)])
    # Rows of the transpose: to state i from every state.
    transposed = jnp.stack([p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)])
    matrix = jnp.eye(4, dtype=p.dtype) - discount * transposed
    return (1 - discount) * jnp.linalg.solve(matrix, start)


def returns(
    ego: Float[Array, "5"],
    other: Float[Array, "5"],
    *,
    discount: float = 0.95,
    payoffs: tuple[float, ...] = PAYOFFS,
    normalised: bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Both players' discounted returns (J¹, J²).

    Args:
        normalised: multiply by 1 − γ, so that J is a per-step reward. The paper writes the plain sum, but its step
            sizes reproduce its figures with the normalised one.

    Raises:
        ValueError: not four payoffs, or a discount outside [0, 1).
    """
    if len(payoffs) != 4:
        raise ValueError(f"payoffs has {len(payoffs)} entries; allowed: 4 (CC, CD, DC, DD)")
    occupancy = joint_play(ego, other, discount)
    own = jnp.asarray(payoffs, occupancy.dtype)
    theirs = own[jnp.array(_SWAP)]
    scale = 1.0 if normalised else 1.0 / (1 - discount)
    return scale * (occupancy @ own), scale * (occupancy @ theirs)


def zero_determinant(
    extortion: float, slope: float, payoffs: Payoffs4 = PAYOFFS
) -> tuple[float, float, float, float]:
    """Press and Dyson's extortion strategy (P(C) after CC, CD, DC, DD) with factor χ and slope φ.

    In the undiscounted game it enforces s_ego − P = χ (s_other − P); χ = 1, φ = 1/3 is tit-for-tat.

    Raises:
        ValueError: χ below 1, or a slope for which these are no probabilities.
    """
    r, s, t, p = payoffs
    if extortion < 1:
        raise ValueError(f"extortion is {extortion}; allowed: at least 1")
    limit = (p - s) / ((p - s) + extortion * (t - p))
    if not 0 < slope <= limit:
        raise ValueError(f"slope is {slope}; allowed: in (0, {limit:.6g}]")
    ratio = (t - p) / (p - s)
    return (
        1 - slope * (extortion - 1) * (r - p) / (p - s),
        1 - slope * (1 + extortion * ratio),
        slope * (extortion + ratio),
        0.0,
    )


def extortion_fit(
    policy: Float[Array, "5"], payoffs: Payoffs4 = PAYOFFS
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The zero-determinant strategy nearest to a policy's P(C) after CC, CD, DC, DD: (χ, slope φ, mean squared error).

    The strategies are linear in a = φ and b = φ χ, so this is a least-squares fit in closed form (not restricted to
    χ ≥ 1). A random policy fits badly; the error of a learned one shows how close it is to extortion (COALA, Fig. 8).
    """
    r, s, t, p = payoffs
    gain, ratio = (r - p) / (p - s), (t - p) / (p - s)
    probs = jax.nn.sigmoid(policy[1:])
    target = probs - jnp.array([1.0, 1.0, 0.0, 0.0], probs.dtype)
    design = jnp.array([[gain, -gain], [-1.0, -ratio], [ratio, 1.0], [0.0, 0.0]], probs.dtype)
    coefficients = jnp.linalg.solve(design.T @ design, design.T @ target)
    error = jnp.mean(jnp.square(design @ coefficients - target))
    return coefficients[1] / coefficients[0], coefficients[0], error
