"""What hindsight networks for continuous actions compute, against densities and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from agents.credit.sampled_hindsight import kind_mean, moment_loss, moment_ratio


def test_moment_ratio_has_the_moments_of_every_entry():
    """Under a standard normal z, the ratio's first two moments are those asked for; the loss is a difference of
    log densities."""
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 3, 4, 2)) * 0.5  # N = 3, K = 4, Z = 2
    nodes, weight = np.polynomial.hermite_e.hermegauss(8)
    weight = weight / weight.sum()
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    p = np.outer(weight, weight).reshape(-1)
    with jax.enable_x64(True):
        tiled = jnp.broadcast_to(z, (3, *z.shape))
        ratio = np.asarray(moment_ratio(jnp.asarray(mean), jnp.asarray(log_std), tiled))
        loss = np.asarray(moment_loss(*map(jnp.asarray, (mean, log_std, mean[:, 0]))))
    moment = lambda f: np.einsum("m,nmk,mz->nkz", p, ratio, f)  # noqa: E731
    np.testing.assert_allclose(np.einsum("m,nmk->nk", p, ratio), 1.0, atol=1e-9)
    np.testing.assert_allclose(moment(z), mean, atol=1e-9)
    np.testing.assert_allclose(moment(z**2), mean**2 + np.exp(2 * log_std), atol=1e-9)
    found = stats.norm.logpdf(mean[:, :1]) - stats.norm.logpdf(mean[:, :1], mean, np.exp(log_std))
    np.testing.assert_allclose(loss, found.sum(-1), atol=1e-9)


def test_kinds_weigh_alike():
    """By hand: 6 pairs of the first kind cost 12, 2 of the second 10; the third does not occur."""
    losses = jnp.array([[4.0, 10.0, 0.0], [8.0, 0.0, 0.0]])
    counts = jnp.array([[2.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    assert float(kind_mean(losses.sum(0), counts.sum(0))) == pytest.approx((12 / 6 + 10 / 2) / 2)
    assert float(kind_mean(0 * losses.sum(0), 0 * counts.sum(0))) == 0.0
