import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from internal_rl.runs.statistics import (
    hierarchical_success_ci,
    iqm,
    median_and_quartiles,
    pooled_success,
    stratified_bootstrap_ci,
    success_interval,
)

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@given(numbers)
def test_iqm_is_the_trimmed_mean_of_every_value_repeated_four_times(values):
    """Four copies make n a multiple of four, where scipy's and rliable's trimming has no
    rounding."""
    expected = stats.trim_mean(np.repeat(values, 4), 0.25)
    np.testing.assert_allclose(iqm(values), expected, atol=1e-9)


def test_iqm_closed_forms():
    assert iqm([5.0]) == 5.0
    assert iqm([1.0, 2.0]) == 1.5
    assert iqm([0.0, 3.0, 9.0]) == pytest.approx((0 / 4 + 3 + 9 / 4) / 1.5)
    assert iqm([8, 1, 2, 100]) == 5.0  # unsorted integers; (2 + 8) / 2
    assert iqm([[1, 2], [3, 4]]) == 2.5
    np.testing.assert_allclose(iqm([[1.0, 10.0], [2.0, 20.0]], axis=0), [1.5, 15.0])
    with pytest.raises(ValueError, match="no values"):
        iqm([])


def test_median_and_quartiles():
    middle, low, high = median_and_quartiles(
        [[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]
    )
    np.testing.assert_allclose([middle, low, high], [[2, 5], [1, 5], [3, 5]])


def test_bootstrap_closed_forms():
    """The mean of two resampled values of {0, 1} is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    assert stratified_bootstrap_ci([0.0, 1.0], np.mean, level=0.95) == (0.0, 1.0)
    assert stratified_bootstrap_ci([0.0, 1.0], np.mean, level=0.40) == (0.5, 0.5)
    assert stratified_bootstrap_ci([0.3] * 5) == pytest.approx((0.3, 0.3))


def test_tasks_are_strata():
    """Tasks differ, seeds do not: resampling within tasks leaves nothing to vary."""
    scores = np.tile([0.0, 1.0], (5, 1))
    assert stratified_bootstrap_ci(scores, np.mean) == (0.5, 0.5)
    low, high = stratified_bootstrap_ci(scores.reshape(-1), np.mean)
    assert high - low > 0.3
    with pytest.raises(ValueError, match=r"allowed: \[S\] or \[S, tasks\]"):
        stratified_bootstrap_ci(np.zeros((2, 2, 2)))


def test_bootstrap_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = stratified_bootstrap_ci(rng.normal(size=20), np.mean, reps=400, seed=trial)
        hits += low <= 0.0 <= high
    # A percentile bootstrap of 20 values covers a little less than it says.
    assert 0.88 <= hits / 300 <= 0.98


def test_bootstrap_is_deterministic_in_its_seed():
    scores = np.random.default_rng(1).uniform(size=7)
    assert stratified_bootstrap_ci(scores, seed=3) == stratified_bootstrap_ci(scores, seed=3)
    assert stratified_bootstrap_ci(scores, seed=3) != stratified_bootstrap_ci(scores, seed=4)


def test_hierarchical_interval_of_one_seed_is_binomial():
    low, high = hierarchical_success_ci([300], 1000, np.mean, reps=50_000)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    np.testing.assert_allclose([low, high], expected, atol=0.002)


def test_hierarchical_interval_is_the_wider_one():
    """Equal rates: seeds alone would give a point, episodes give the binomial width."""
    counts = [50, 50, 50]
    assert stratified_bootstrap_ci(np.array(counts) / 100) == pytest.approx((0.5, 0.5))
    low, high = hierarchical_success_ci(counts, 100)
    assert 0.1 < high - low < 0.25
    assert hierarchical_success_ci([0, 0, 0], 100) == (0.0, 0.0)


def test_hierarchical_interval_with_many_episodes_is_the_bootstrap_over_seeds():
    counts = np.array([200_000, 500_000, 900_000])
    one = hierarchical_success_ci(counts, 1_000_000)
    other = stratified_bootstrap_ci(counts / 1_000_000)
    np.testing.assert_allclose(one, other, atol=0.005)


@given(st.integers(1, 500), st.floats(0, 1))
@settings(max_examples=30)
def test_wilson_interval_matches_scipy(episodes, fraction):
    successes = round(fraction * episodes)
    expected = stats.binomtest(successes, episodes).proportion_ci(method="wilson")
    low, high = success_interval(successes, episodes)
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-9)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0


def test_no_success_still_has_an_upper_bound():
    low, high = success_interval(0, 1000)
    z2 = 1.959964**2
    assert low == 0.0
    assert high == pytest.approx(z2 / (1000 + z2), rel=1e-5)


def test_pooled_success():
    assert pooled_success([1, 2, 3], 4) == 0.5
    for successes, episodes in (([5], 4), ([-1], 4), ([0], 0)):
        with pytest.raises(ValueError, match="do not fit"):
            pooled_success(successes, episodes)
