import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware.estimators import (
    ESTIMATORS,
    advantages,
    batch_lambda_return,
    by_name,
    score_weights,
    value_targets,
)


def double_loop(x, v, inner, g, lam, average_future, normalize_current):
    """The recursion of the spec's section 5.2 as sums, one chain and one step at a time: no accumulators."""
    batch, length = x.shape
    scale = batch if normalize_current else 1
    out = np.zeros((batch, length))
    own_tail = lambda b, start: sum(  # noqa: E731 - a plain λ-return of one chain from `start` on
        (g * lam) ** (k - start) * (x[b, k] + g * (1 - lam) * v[b, k]) for k in range(start, length)
    )
    for b, t in itertools.product(range(batch), range(length)):
        end = (t // inner + 1) * inner if average_future else length
        total = sum(
            (g * lam) ** (k - t) * (x[b, k] / scale + g * (1 - lam) * v[b, k])
            for k in range(t, end)
        )
        if average_future and end < length:
            later = np.mean([own_tail(c, end) for c in range(batch)])
            total += (g * lam) ** (end - t) * later
        out[b, t] = total
    return out


@pytest.mark.parametrize("average_future", [False, True])
@pytest.mark.parametrize("normalize_current", [False, True])
@pytest.mark.parametrize(("batch", "inner", "episodes"), [(3, 5, 2), (1, 3, 3), (4, 3, 1)])
def test_batch_lambda_return(average_future, normalize_current, batch, inner, episodes):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(batch), 2)
        x, v = (jax.random.normal(k, (2, batch, inner * episodes)) for k in keys)  # K = 2 by vmap
        for g, lam in ((1.0, 1.0), (0.9, 0.7)):
            found = jax.vmap(
                lambda x, v, g=g, lam=lam: batch_lambda_return(
                    x,
                    v,
                    inner_length=inner,
                    discount=g,
                    lam=lam,
                    average_future=average_future,
                    normalize_current=normalize_current,
                )
            )(x, v)
            for k in range(2):
                expected = double_loop(
                    *(np.asarray(y[k]) for y in (x, v)),
                    inner,
                    g,
                    lam,
                    average_future,
                    normalize_current,
                )
                np.testing.assert_allclose(found[k], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["coala", "batch_unaware", "m_fos"])
def test_advantage_without_critic_is_the_score_weight(name):
    reward = jax.random.normal(jax.random.key(0), (3, 8))
    estimator = ESTIMATORS[name]
    found = advantages(
        estimator, reward, jnp.zeros_like(reward), inner_length=4, discount=1.0, gae_lambda=1.0
    )
    if estimator.reduction == "mean":
        found = found / 3
    np.testing.assert_allclose(found, score_weights(estimator, reward, 4), atol=1e-5)


def test_value_targets_are_own_chain_returns():
    reward = jnp.arange(8.0).reshape(2, 4)
    found = value_targets(reward, jnp.ones((2, 4)), inner_length=2, discount=1.0, td_lambda=1.0)
    np.testing.assert_allclose(found, [[6, 6, 5, 3], [22, 18, 13, 7]])
    averaged = value_targets(
        reward, jnp.ones((2, 4)), inner_length=2, discount=1.0, td_lambda=1.0, average_future=True
    )
    np.testing.assert_allclose(averaged, [[10, 10, 5, 3], [18, 14, 13, 7]])


def test_weights_worked_out_by_hand():
    reward = jnp.array([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 0.0, 2.0]])
    coala = score_weights(ESTIMATORS["coala"], reward, 2)
    np.testing.assert_allclose(coala, [[1.5 + 7, 1 + 7, 6, 4], [7, 7, 1, 1]])
    unaware = score_weights(ESTIMATORS["batch_unaware"], reward, 2)
    np.testing.assert_allclose(unaware, [[7.5, 7, 6, 4], [1, 1, 1, 1]])
    m_fos = score_weights(ESTIMATORS["m_fos"], reward, 2)
    np.testing.assert_allclose(m_fos, [[1.5 + 3.5, 1 + 3.5, 6, 4], [3.5, 3.5, 1, 1]])


def test_bad_input():
    with pytest.raises(ValueError, match=r"estimator is 'coala_pg'; allowed: coala, full"):
        by_name("coala_pg")
    reward = jnp.zeros((2, 4))
    message = r"inner_length is 3 in chains of 4 steps; allowed: divisors of that length"
    with pytest.raises(ValueError, match=message):
        score_weights(ESTIMATORS["coala"], reward, 3)
    with pytest.raises(ValueError, match=message):
        advantages(
            ESTIMATORS["coala"], reward, reward, inner_length=3, discount=1.0, gae_lambda=1.0
        )
    with pytest.raises(ValueError, match=r"allowed with a critic: coala"):
        advantages(ESTIMATORS["full"], reward, reward, inner_length=2, discount=1.0, gae_lambda=1.0)
