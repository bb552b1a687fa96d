"""Open-loop classes in closed form: the arithmetic of embedded twins (MUPI; derived in full in docs/mupi.md).

For deterministic policies and a symmetric history, with m the prior mass of policies that generate one's own actions so
far and q the share of it that cooperates next, the posterior of "the other is my copy" is ω = α / (α + (1 − α) m).
Payoffs are the row player's (R, S, T, P).
"""

from typing import Literal

Payoffs4 = tuple[float, float, float, float]


def copy_posterior(alpha: float, mass: float) -> float:
    """ω."""
    return alpha / (alpha + (1 - alpha) * mass)


def advantage_of_cooperation(payoffs: Payoffs4, omega: float, q: float) -> float:
    """Q(C) − Q(D) = (S−P) + (R−S)[ω + (1−ω)q] − (T−P)(1−ω)q.

    For R−S = T−P this is (S−P) + (R−S)ω, so in both prisoner's dilemmas: cooperate if and only if ω > 1/2.
    """
    r, s, t, p = payoffs
    return (s - p) + (r - s) * (omega + (1 - omega) * q) - (t - p) * (1 - omega) * q


def twin_schedule(
    alpha: float,
    rounds: int,
    payoffs: Payoffs4,
    policies: Literal["open_loop", "half_defect"] = "open_loop",
) -> list[int]:
    """Actions (0 = C) of two embedded agents with the same prior over open-loop sequences; γ = 0, ties defect.

    Args:
        policies: uniform over all sequences, or half of the mass on always-defect and half uniform.
    """
    extra = 0.5 if policies == "half_defect" else 0.0
    uniform = 1.0 - extra  # mass of the uniform part that fits the history
    actions: list[int] = []
    for _ in range(rounds):
        mass = extra + uniform
        q = 0.5 * uniform / mass
        cooperate = advantage_of_cooperation(payoffs, copy_posterior(alpha, mass), q) > 1e-12
        actions.append(0 if cooperate else 1)
        uniform = uniform / 2
        extra = 0.0 if cooperate else extra
    return actions
