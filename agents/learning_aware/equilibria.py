"""Checks of embedded equilibria in one-shot games, and self-consistent policies (MUPI, section 4).

Exact or linear programming, on the host.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, linprog


def is_subjective_equilibrium(
    payoffs: np.ndarray, profile: tuple[int, int], beliefs: tuple[np.ndarray, np.ndarray]
) -> bool:
    """Whether each action of `profile` is a best response to its player's own conditional beliefs.

    Args:
        payoffs: [2, A, A].
        beliefs: per player p(other's action | own action) [A, A], rows by own action; the row of the profile's own
            action must be right: the other's action in the profile for sure.
    """
    for player, belief in enumerate(beliefs):
        own, other = profile[player], profile[1 - player]
        table = payoffs[player] if player == 0 else payoffs[player].T  # [own, other]
        if abs(belief[own, other] - 1) > 1e-12:
            return False
        expected = np.sum(belief * table, axis=1)
        if expected.max() > table[own, other] + 1e-12:
            return False
    return True


def common_completion(
    payoffs: np.ndarray, profile: tuple[int, int], slack: float = 0.0
) -> np.ndarray | None:
    """A strictly positive joint distribution q [A, A] that supports `profile` as an embedded equilibrium, or None.

    Off the path, both players' conditionals come from the one q: Σ_b q(a', b)(u(a', b) − u* − slack) ≤ 0 for every
    deviation a' of each. Linear in q, so a linear program decides it: maximise the smallest entry.
    """
    size = payoffs.shape[1]
    best = [payoffs[player][profile] + slack for player in range(2)]
    rows = []
    for player in range(2):
        for action in range(size):
            if action == profile[player]:
                continue
            row = np.zeros((size, size))
            where = (action, slice(None)) if player == 0 else (slice(None), action)
            row[where] = payoffs[player][where] - best[player]
            rows.append(np.append(row.reshape(-1), 0.0))
    cells = size * size
    smallest = np.hstack([-np.eye(cells), np.ones((cells, 1))])  # t − q ≤ 0
    upper = np.vstack([*rows, smallest])
    total = np.append(np.ones(cells), 0.0)[None]
    result = linprog(
        np.append(np.zeros(cells), -1.0),
        A_ub=upper,
        b_ub=np.zeros(len(upper)),
        A_eq=total,
        b_eq=[1.0],
        bounds=[(0, 1)] * (cells + 1),
    )
    if not result.success or -result.fun < 1e-9:
        return None
    return result.x[:cells].reshape(size, size)


def self_consistent(gap: Callable[[float], float], grid: int = 1000) -> list[float]:
    """All probabilities j that are best responses to being believed: j = 1 if gap(j) > 0, 0 if < 0, any if = 0.

    A predictor that is queried about its own agent may have several fixed points, so all are returned, ascending: 0 and 1
    where they hold, and every interior zero that a grid of `grid` intervals separates.

    Args:
        gap: value of acting minus value of not acting, if one is believed to act with probability j.
    """
    points = np.linspace(0.0, 1.0, grid + 1)
    values = [gap(float(j)) for j in points]
    found = [0.0] if values[0] <= 0 else []
    for j in range(grid):
        inside_zero = j > 0 and values[j] == 0
        if inside_zero:
            found.append(float(points[j]))
        elif values[j] * values[j + 1] < 0:
            root = brentq(gap, points[j], points[j + 1], xtol=1e-14)
            found.append(float(root))  # pyright: ignore[reportArgumentType]
    if values[-1] >= 0:
        found.append(1.0)
    return found


def island_gap(
    j: float, reward_stay: float, reward_swim: float, doubt: float, sinks: float
) -> float:
    """Q(jump) − Q(stay) on the island of the spec's section 11.7.

    Hypotheses about oneself: "I am π" (weight 1 − δ), a jumper who sinks (δ s), a jumper who swims (δ (1 − s)); π always
    swims, and j = π(jump). Jumping is evidence about which of them one is.
    """
    swims = (1 - doubt) * j + doubt * (1 - sinks)
    return reward_swim * swims / ((1 - doubt) * j + doubt) - reward_stay
