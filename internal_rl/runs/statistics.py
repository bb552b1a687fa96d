"""Statistics over seeds: interquartile mean, bootstrap intervals, success rates.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
Plain numpy, on the host, deterministic in `seed`. S seeds, N episodes per seed.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

ArrayLike = Any
"""What `np.asarray` takes. numpy's own type of that name cannot be checked at run time."""
Statistic = Callable[..., np.ndarray]
"""`statistic(x, axis=-1)`, like `iqm`, `np.mean` and `np.median`."""
Interval = tuple[float, float]


def iqm(x: ArrayLike, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: the mean of the middle half.

    When the number n of values is no multiple of four, a value of which only a part lies in the
    middle half counts with that part as weight: for n = 3, (x_1/4 + x_2 + x_3/4) / 1.5 of the
        sorted values. rliable drops floor(n/4) values from
    each end instead; both agree when four divides n.

    Args:
        x: values.
        axis: the axis that is averaged away; None takes all values.
    """
    values = np.asarray(x, dtype=np.float64)
    values = np.sort(values.reshape(-1), axis=0) if axis is None else np.sort(values, axis=axis)
    values = np.moveaxis(values, 0 if axis is None else axis, -1)
    n = values.shape[-1]
    if n == 0:
        raise ValueError("the interquartile mean of no values is undefined")
    # Value i covers [i, i + 1] of [0, n]; its weight is the part of that inside [n/4, 3n/4].
    left = np.arange(n, dtype=np.float64)
    weights = np.clip(np.minimum(left + 1.0, 0.75 * n) - np.maximum(left, 0.25 * n), 0.0, 1.0)
    return np.asarray(values @ weights / weights.sum())


def median_and_quartiles(x: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(median, lower quartile, upper quartile) over `axis`, by default the seeds."""
    low, middle, high = np.quantile(np.asarray(x, dtype=np.float64), [0.25, 0.5, 0.75], axis=axis)
    return middle, low, high


def stratified_bootstrap_ci(
    scores: ArrayLike,
    statistic: Statistic = iqm,
    *,
    reps: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of `statistic` over seeds, with tasks as strata.

    Args:
        scores: [S] or [S, tasks]; the seeds of every task are resampled independently of the other
            tasks.
        statistic: applied to all resampled scores of one repetition together.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"scores have shape {values.shape}; allowed: [S] or [S, tasks]")
    values = values.reshape(values.shape[0], -1)
    seeds, tasks = values.shape
    rng = np.random.default_rng(seed)
    chosen = rng.integers(seeds, size=(reps, seeds, tasks))
    samples = values[chosen, np.arange(tasks)]  # [reps, S, tasks]
    return _percentile(statistic(samples.reshape(reps, -1), axis=-1), level)


def hierarchical_success_ci(
    successes: ArrayLike,
    episodes: int,
    statistic: Statistic = iqm,
    *,
    reps: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of `statistic` of the per-seed success rates: seeds first, then episodes
    within seeds.

    With a few seeds of many episodes, resampling only the seeds would treat every rate as exactly
    known. When every episode failed, or none did, any bootstrap returns a single point; report
    `success_interval` beside it.

    Args:
        successes: int[S], successful episodes of each seed.
        episodes: N, episodes of each seed.
    """
    counts = _counts(successes, episodes)
    rng = np.random.default_rng(seed)
    chosen = counts[rng.integers(counts.size, size=(reps, counts.size))]
    # Drawing N of N binary episodes with replacement is drawing a binomial count.
    rates = rng.binomial(episodes, chosen / episodes) / episodes  # [reps, S]
    return _percentile(statistic(rates, axis=-1), level)


def pooled_success(successes: ArrayLike, episodes: int) -> float:
    """Success rate over all episodes of all seeds (N each)."""
    counts = _counts(successes, episodes)
    return float(counts.sum() / (counts.size * episodes))


def success_interval(successes: int, episodes: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a success probability; of sensible width at 0 and at all successes,
    too.

    It treats the episodes as independent: right for one policy, too narrow for several seeds that
        differ.
    """
    count = int(_counts(successes, episodes).sum())
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate, correction = count / episodes, z * z / episodes
    centre = (rate + correction / 2) / (1 + correction)
    half = math.sqrt(correction * (rate * (1 - rate) + correction / 4)) / (1 + correction)
    # The bounds are exact at the ends; rounding must not move them past 0 and 1.
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == episodes else centre + half
    return low, high


def _percentile(samples: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _counts(successes: ArrayLike, episodes: int) -> np.ndarray:
    counts = np.atleast_1d(np.asarray(successes))
    if episodes < 1 or counts.ndim != 1 or (counts < 0).any() or (counts > episodes).any():
        raise ValueError(f"successes {counts.tolist()} do not fit {episodes} episodes per seed")
    return counts
