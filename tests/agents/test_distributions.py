import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from agents.distributions import (
    categorical,
    diagonal_gaussian,
    factored_log_prob,
    kl_to_standard_normal,
)
from envs.world import ActionSpec


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def test_gaussian_against_scipy():
    mean, log_std, x = random(0, 4, 3), random(1, 1, 3), random(2, 4, 3)
    distribution = diagonal_gaussian(jnp.float32(mean), jnp.float32(log_std))
    np.testing.assert_allclose(
        distribution.log_prob(jnp.float32(x)),
        stats.norm.logpdf(x, mean, np.exp(log_std)).sum(-1),
        rtol=1e-5,
    )
    entropy = stats.norm.entropy(scale=np.exp(log_std)).sum()
    np.testing.assert_allclose(distribution.entropy(), np.full(4, entropy), rtol=1e-5)


def test_gaussian_samples_have_the_right_moments():
    mean, log_std = jnp.array([1.0, -2.0]), jnp.array([0.5, -1.0])
    x = np.asarray(
        diagonal_gaussian(mean, log_std).sample(seed=jax.random.key(0), sample_shape=(20_000,))
    )
    np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(x.std(0), np.exp(log_std), rtol=0.03)


def test_categorical_against_a_softmax():
    logits, action = random(0, 5, 4), np.array([0, 1, 2, 3, 1])
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = categorical(jnp.float32(logits)).log_prob(jnp.asarray(action))
    np.testing.assert_allclose(found, np.log(probs[np.arange(5), action]), rtol=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.3, 0.7)])
def test_kl_against_an_integral(mean, log_std):
    p, q = stats.norm(mean, np.exp(log_std)), stats.norm()
    expected, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -15, 15)
    found = kl_to_standard_normal(jnp.full((2, 1), mean), jnp.full((2, 1), log_std))
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5, atol=1e-6)
    # Dimensions add up.
    pair = kl_to_standard_normal(jnp.array([mean, 2.0]), jnp.array([log_std, 0.1]))
    other = 0.5 * (np.exp(0.2) + 4.0 - 1.0 - 0.2)
    np.testing.assert_allclose(pair, expected + other, rtol=1e-5)


def test_factored_likelihood_is_a_product_of_categoricals():
    sizes = (2, 3, 4)
    logits, index = random(0, 6, 9), np.array([[0, 1, 1, 1, 0, 1], [2, 0, 1, 1, 2, 0], [3] * 6])
    starts = (0, 2, 5)
    one_hots = np.zeros((6, 9))
    expected = np.zeros(6)
    for start, size, chosen in zip(starts, sizes, index, strict=True):
        for row in range(6):
            one_hots[row, start + chosen[row]] = 1
            block = np.exp(logits[row, start : start + size])
            expected[row] += np.log(block[chosen[row]] / block.sum())
    found = factored_log_prob(jnp.float32(logits), jnp.float32(one_hots), sizes)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_size_of_the_action_head():
    assert ActionSpec(num_actions=4).param_dim == 4
    assert ActionSpec(dim=8).param_dim == 8
