"""Two Gaussian decisions with everything about them in closed form.

Decision 0 makes a treasure (reward 1) appear with probability bump(z_0) and pays a distractor (0.3) at once
with another one. Its outcome is visible in the next state. Decision 1 collects the treasure if there is one,
whatever z_1, and pays a distractor with probability bump(z_1). So z_0 matters for the treasure alone among
what comes later, and z_1 for nothing later.
"""

from typing import NamedTuple

import numpy as np

from agents.credit.sampled import Decisions

MEAN, STD = np.array([0.3, -0.2]), np.array([0.8, 0.7])
TREASURE, OWN, LATER = (1.0, 1.6), (-0.5, 1.9), (0.9, 1.7)  # (centre, width) of the three bumps
DISTRACTOR = 0.3
KINDS = (1.0, DISTRACTOR)


def bump(z, shape):
    centre, width = shape
    return np.exp(-((z - centre) ** 2) / (2 * width**2))


def mean_bump(shape, n):
    """E[bump(z_n)]."""
    centre, width = shape
    spread = width**2 + STD[n] ** 2
    return width / np.sqrt(spread) * np.exp(-((centre - MEAN[n]) ** 2) / (2 * spread))


def _slopes(shape, n):
    """d E[bump] / d (mean, log std)."""
    spread, gap = shape[1] ** 2 + STD[n] ** 2, shape[0] - MEAN[n]
    value = mean_bump(shape, n)
    of_std = value * (-STD[n] / spread + STD[n] * gap**2 / spread**2)
    return np.array([value * gap / spread, of_std * STD[n]])


def exact_gradient():
    """dV / d (mean, log std) of each decision, [2, 2]."""
    first = _slopes(TREASURE, 0) + DISTRACTOR * _slopes(OWN, 0)
    return np.stack([first, DISTRACTOR * _slopes(LATER, 1)])


def score(z, n):
    """∇log π(z) with respect to (mean, log std), [..., 2]."""
    u = (z - MEAN[n]) / STD[n]
    return np.stack([u / STD[n], u**2 - 1], axis=-1)


class Episodes(NamedTuple):
    """Arrays [E] of coins and codes."""

    z0: np.ndarray
    z1: np.ndarray
    treasure: np.ndarray
    own: np.ndarray
    later: np.ndarray

    def decisions(self, dtype) -> Decisions:
        batch = self.z0.shape
        nothing, seen = 1.0 - self.treasure, self.treasure
        one, zero = np.ones(batch), np.zeros(batch)
        obs = np.stack(
            [np.stack([one, zero, zero], -1), np.stack([zero, nothing, seen], -1)], axis=1
        )
        kind_count = np.stack(
            [np.stack([zero, self.own], -1), np.stack([self.treasure, self.later], -1)], axis=1
        )
        spread = lambda x: np.broadcast_to(x[:, None], (*batch, 2, 1)).astype(dtype)  # noqa: E731
        return Decisions(
            obs=obs.astype(dtype),
            action=np.stack([self.z0, self.z1], 1)[..., None].astype(dtype),
            mean=spread(MEAN),
            log_std=spread(np.log(STD)),
            valid=np.ones((*batch, 2), bool),
            reward=(kind_count @ np.array(KINDS)).astype(dtype),
            kind_reward=(kind_count * np.array(KINDS)).astype(dtype),
            kind_count=kind_count.astype(dtype),
        )


def sample(rng, count) -> Episodes:
    """Independent episodes."""
    z0, z1 = (MEAN[n] + STD[n] * rng.standard_normal(count) for n in range(2))
    coin = lambda p: (rng.random(count) < p).astype(float)  # noqa: E731
    return Episodes(z0, z1, coin(bump(z0, TREASURE)), coin(bump(z0, OWN)), coin(bump(z1, LATER)))


def nodes(n, size):
    """Gauss-Hermite nodes and weights of decision n's policy."""
    x, w = np.polynomial.hermite_e.hermegauss(size)
    return MEAN[n] + STD[n] * x, w / w.sum()


def enumerate_all(size):
    """All episodes on a product of nodes with their probabilities [E]."""
    (z0, w0), (z1, w1) = nodes(0, size), nodes(1, size)
    grid = np.meshgrid(np.arange(size), np.arange(size), *[[0, 1]] * 3, indexing="ij")
    i, j, treasure, own, later = (g.reshape(-1) for g in grid)
    side = lambda p, hit: np.where(hit == 1, p, 1 - p)  # noqa: E731
    probability = w0[i] * w1[j] * side(bump(z0[i], TREASURE), treasure)
    probability *= side(bump(z0[i], OWN), own) * side(bump(z1[j], LATER), later)
    episodes = Episodes(z0[i], z1[j], *(x.astype(float) for x in (treasure, own, later)))
    return episodes, probability
