"""The diagonal scan against a Python loop: values, gradients, second derivatives, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internal_rl.models.nn import diagonal_scan

SCAN = jax.jit(diagonal_scan)
both = pytest.mark.parametrize("method", ["loop", "tree"])


def naive_scan(a, x, h0):
    h, states = h0, []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return jnp.stack(states, axis=1), h


def random_inputs(length: int, seed: int = 0, dtype: str = "float64"):
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 1, (2, length, 3)) * (rng.random((2, length, 1)) > 0.2)  # some resets
    return tuple(
        jnp.asarray(y, dtype)
        for y in (a, rng.standard_normal((2, length, 3)), rng.standard_normal((2, 3)))
    )


def loss(scan, a, x, h0):
    h, last = scan(a, x, h0)
    return jnp.sin(h).sum() + (jnp.cos(last) * jnp.arange(1.0, 4.0, dtype=x.dtype)[None]).sum()


@both
@pytest.mark.parametrize("length", [1, 2, 13])
def test_values_and_gradients_equal_plain_autodiff_of_the_loop(method, length):
    with jax.enable_x64(True):
        args = random_inputs(length)

        def scan(a, x, h0):
            return diagonal_scan(a, x, h0, method=method)

        for got, want in zip(scan(*args), naive_scan(*args), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-12)
        value_and_gradients = jax.grad(loss, argnums=(1, 2, 3))
        gradients = value_and_gradients(scan, *args), value_and_gradients(naive_scan, *args)
        for got, want in zip(*gradients, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-12)


@both
def test_second_derivatives_equal_plain_autodiff(method):
    """Meta-gradients differentiate the hand-written gradient once more."""
    with jax.enable_x64(True):
        a, x, h0 = random_inputs(5)

        def sharpness(scan, a):
            return (jax.grad(loss, argnums=2)(scan, a, x, h0) ** 2).sum()

        def scan(a, x, h0):
            return diagonal_scan(a, x, h0, method=method)

        got, want = (jax.grad(sharpness, argnums=1)(f, a) for f in (scan, naive_scan))
        np.testing.assert_allclose(got, want, atol=1e-12)


@settings(max_examples=15)
@given(cut=st.integers(1, 8), seed=st.integers(0, 1000))
def test_split_anywhere(cut, seed):
    a, x, h0 = random_inputs(9, seed, "float32")
    h, last = SCAN(a, x, h0)
    first, middle = SCAN(a[:, :cut], x[:, :cut], h0)
    second, end = SCAN(a[:, cut:], x[:, cut:], middle)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), h, atol=1e-5)
    np.testing.assert_allclose(end, last, atol=1e-5)


@both
def test_no_start_is_zero_and_half_precision_is_accumulated_in_float32(method):
    a, x, _ = random_inputs(200, dtype="float32")
    h, last = diagonal_scan(a, x, method=method)
    np.testing.assert_allclose(h, naive_scan(a, x, jnp.zeros((2, 3)))[0], atol=1e-5)
    half, half_last = diagonal_scan(a.astype(jnp.bfloat16), x.astype(jnp.bfloat16), method=method)
    assert half.dtype == half_last.dtype == jnp.float32
    np.testing.assert_allclose(half, h, atol=5e-2)
    np.testing.assert_allclose(half_last, last, atol=5e-2)


@both
@pytest.mark.parametrize("decay", [0.0, 1e-30, 1.0])
def test_extreme_decays_stay_finite(method, decay):
    x = jnp.ones((1, 500, 2))

    def total(a):
        return diagonal_scan(a, x, method=method)[0].mean()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.full_like(x, decay))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"method = 'fast'.*'loop'"):
        diagonal_scan(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 3)), method="fast")  # pyright: ignore
