"""What every sequence model promises: parallel = recurrent, resets, padding, causality, cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from tests.internal_rl.models.nn.models import (
    NAMES,
    assert_trees_close,
    inputs,
    make_model,
    make_module,
    run_steps,
    warm_carry,
)

BATCH, LENGTH = 3, 12
every_model = pytest.mark.parametrize("name", NAMES)
# One of each kind where the window and the tree scan make no difference.
each_kind = pytest.mark.parametrize("name", ["transformer", "hawk", "gru"])


def some_resets(seed: int = 0) -> np.ndarray:
    """Random resets; row 0 has one at both ends and two in a row, the last row none."""
    reset = np.random.default_rng(seed).random((BATCH, LENGTH)) < 0.25
    reset[0, [0, 4, 5, LENGTH - 1]] = True
    reset[1, 0] = False
    reset[-1] = False
    return reset


@every_model
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-5), ("float64", 1e-10)])
def test_parallel_equals_steps_and_any_split(name, dtype, atol):
    with jax.enable_x64(dtype == "float64"):
        model, x, reset = make_model(name, dtype), inputs(0, BATCH, LENGTH, dtype), some_resets()
        start = warm_carry(model, BATCH, LENGTH, dtype)
        carry, y = model.call(model.params, x, start, reset)
        assert y.dtype == dtype
        assert np.isfinite(y).all()
        assert_trees_close((carry, np.asarray(y)), run_steps(model, x, start, reset), atol)
        for cut in (2, 6) if dtype == "float64" else ():  # 2 also cuts a convolution's window
            first, y1 = model.call(model.params, x[:, :cut], start, reset[:, :cut])
            second, y2 = model.call(model.params, x[:, cut:], first, reset[:, cut:])
            np.testing.assert_allclose(np.concatenate([y1, y2], 1), y, atol=atol, rtol=0)
            assert_trees_close(second, carry, atol)


@every_model
def test_no_carry_an_initial_carry_and_a_reset_are_the_same_start(name):
    model, x = make_model(name), inputs(0, BATCH, LENGTH)
    none, y = model.call(model.params, x)
    assert none is None
    reset = jnp.zeros((BATCH, LENGTH), bool)
    fresh_carry, fresh_y = model.call(model.params, x, model.init_carry(BATCH), reset)
    warm = warm_carry(model, BATCH, LENGTH)
    _, continued = model.call(model.params, x, warm, reset)
    # Not in place: JAX may still be reading the array that it was given.
    reset = reset.at[:, 0].set(True)
    reset_carry, reset_y = model.call(model.params, x, warm, reset)
    _, step_y = run_steps(model, x, model.init_carry(BATCH))
    for other in (fresh_y, reset_y, step_y):
        np.testing.assert_allclose(other, y, atol=2e-5)
    # Equal carries show in what comes next (stale cache slots may differ).
    next_fresh, next_reset = (run_steps(model, x[:, :6], c)[1] for c in (fresh_carry, reset_carry))
    np.testing.assert_allclose(next_reset, next_fresh, atol=2e-5)
    # And the incoming carry does matter where nothing resets it.
    assert np.abs(continued - y).max() > 1e-2


@every_model
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_packed_segments_equal_separate_runs(name, lengths, seed):
    model = make_model(name)
    starts = sorted({0, *(int(end) for end in np.cumsum(lengths) if end < LENGTH)})
    reset, alone = np.zeros((2, BATCH, LENGTH), bool)
    reset[0, starts] = True
    x, carry = inputs(seed, BATCH, LENGTH), model.init_carry(BATCH)
    _, packed = model.call(model.params, x, carry, reset)
    for start, end in zip(starts, [*starts[1:], LENGTH], strict=True):
        # The segment alone, at the front of a row whose rest a causal model must ignore.
        _, y = model.call(model.params, np.roll(x, -start, axis=1), carry, alone)
        np.testing.assert_allclose(packed[0, start:end], y[0, : end - start], atol=2e-5)


@each_kind
def test_vmap_over_another_axis(name):
    model = make_model(name)
    x = np.stack([inputs(i, BATCH, LENGTH) for i in range(2)])
    reset = np.stack([some_resets(i) for i in range(2)])
    carry = warm_carry(model, BATCH, LENGTH)
    together = jax.vmap(model.call, in_axes=(None, 0, None, 0))(model.params, x, carry, reset)
    for i in range(2):
        alone = model.call(model.params, x[i], carry, reset[i])
        assert_trees_close(
            jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], together), alone, 2e-5
        )


@every_model
def test_no_gradient_from_the_future_or_another_segment(name):
    model, size = make_model(name), 6
    reset = np.zeros((1, size), bool)
    reset[0, 2] = True
    x = inputs(0, 1, size)

    def run(x):
        return model.call(model.params, x, None, reset)[1][0].sum(-1)

    influence = np.abs(jax.jacrev(run)(x)[:, 0]).max(-1)  # [t, s] of dy_t / dx_s
    segment = np.array([0, 0, 1, 1, 1, 1])
    allowed = np.tril(np.ones((size, size), bool)) & (segment[:, None] == segment[None])
    assert (influence[~allowed] == 0).all()
    if name != "window":
        assert (influence[allowed] > 0).all()


@every_model
@pytest.mark.parametrize("garbage", [0.0, 1e6])
def test_right_padding_changes_nothing(name, garbage):
    model, reset = make_model(name), some_resets()
    used = np.array([LENGTH, 5, 1])
    valid = np.arange(LENGTH)[None] < used[:, None]
    x = np.where(valid[:, :, None], inputs(0, BATCH, LENGTH), np.float32(garbage))
    start = warm_carry(model, BATCH, LENGTH)
    carry, y = model.call(model.params, x, start, reset, valid)
    for row, n in enumerate(used):
        alone_carry, alone_y = run_steps(model, x[:, :n], start, reset[:, :n])
        np.testing.assert_allclose(y[row, :n], alone_y[row], atol=2e-5)
        of_row = [jax.tree.map(lambda a, r=row: np.asarray(a)[r], c) for c in (carry, alone_carry)]
        assert_trees_close(*of_row, 2e-5)


@every_model
def test_gaps_freeze_the_carry(name):
    """Tokens that do not exist may stand anywhere, as between the internal policy's switches."""
    model, reset = make_model(name), some_resets()
    valid = np.random.default_rng(1).random((BATCH, LENGTH)) < 0.6
    valid[1] = False
    x, start = inputs(0, BATCH, LENGTH), warm_carry(model, BATCH, LENGTH)
    carry, y = model.call(model.params, x, start, reset, valid)
    expected = start
    for t in range(LENGTH):
        after, y_t = model.step(model.params, x[:, t], expected, reset[:, t])

        def select(new, old, exists=valid[:, t]):
            return np.where(exists.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        expected = jax.tree.map(select, after, expected)
        exists = valid[:, t]
        np.testing.assert_allclose(np.asarray(y)[exists, t], np.asarray(y_t)[exists], atol=2e-5)
    assert_trees_close(carry, expected, 2e-5)


@every_model
def test_initial_carry_after_only_padding_is_still_fresh(name):
    model, nothing = make_model(name), np.zeros((BATCH, LENGTH), bool)
    start = model.init_carry(BATCH)
    carry, _ = model.call(model.params, inputs(0, BATCH, LENGTH), start, some_resets(), nothing)
    assert_trees_close(carry, start, 0)


@every_model
def test_gradients_match_finite_differences(name):
    with jax.enable_x64(True):
        model = make_model(name, "float64")
        x = inputs(0, 2, 6, "float64")
        # Two equal tokens in a row, and a reset in one of the two rows.
        x[:, 3] = x[:, 2]
        reset = np.zeros((2, 6), bool)
        reset[0, 2] = True
        leaves, tree = jax.tree.flatten(warm_carry(model, 2, 6, "float64"))
        real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

        def loss(params, x, floats):
            filled = list(leaves)
            for i, leaf in zip(real, floats, strict=True):
                filled[i] = leaf
            carry, y = model.call(params, x, jax.tree.unflatten(tree, filled), reset)
            after = [leaf for leaf in jax.tree.leaves(carry) if leaf.dtype == x.dtype]
            return jnp.sin(y).sum() + sum((leaf**2).sum() for leaf in after)

        check_grads(loss, (model.params, x, [leaves[i] for i in real]), order=1, modes=["rev"])


@each_kind
def test_step_compiles_once_and_its_cost_does_not_grow(name):
    model, traces = make_model(name), 0

    def counted(params, x, carry, reset):
        nonlocal traces
        traces += 1
        return model.merge(params).step(x, carry, reset)

    step = jax.jit(counted)
    x, carry = inputs(0, BATCH, 1)[:, 0], model.init_carry(BATCH)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), carry)
    for t in range(20):
        carry, _ = step(model.params, x, carry, np.full((BATCH,), t == 10))
    assert traces == 1
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), carry) == shapes


@every_model
def test_ten_thousand_steps_inside_a_scan(name):
    model = make_model(name)
    noise = inputs(0, 10_000, 1)

    @jax.jit
    def roll(params, noise):
        module = model.merge(params)
        return jax.lax.scan(
            lambda carry, x: module.step(x, carry, x[:, 0] > 3.5), model.init_carry(1), noise
        )

    carry, y = roll(model.params, noise)
    assert np.isfinite(y).all()
    floats = [a for a in jax.tree.leaves(carry) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in floats)
    if name not in ("transformer", "window"):  # T² logits
        _, parallel = model.call(model.params, noise.swapaxes(0, 1), None, noise[:, :, 0].T > 3.5)
        np.testing.assert_allclose(parallel[0], y[:, 0], atol=1e-3)


@each_kind
def test_step_inside_a_while_loop(name):
    model, x = make_model(name), jnp.asarray(inputs(0, BATCH, 4))

    def body(state):
        t, carry, _ = state
        carry, y = model.step(model.params, jax.lax.dynamic_index_in_dim(x, t, 1, False), carry)
        return t + 1, carry, y

    carry = model.init_carry(BATCH)
    first = model.step(model.params, x[:, 0], carry)[1]
    final = jax.lax.while_loop(lambda s: s[0] < 4, body, (jnp.int32(0), carry, first))
    expected = run_steps(model, np.asarray(x), carry)[1]
    np.testing.assert_allclose(final[2], expected[:, -1], atol=2e-5)


@each_kind
def test_seeds_can_be_vmapped(name):
    def init(key):
        return nnx.split(make_module(name, nnx.Rngs(key)), nnx.Param)[1]

    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(init))(keys)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[1], many)
    assert_trees_close(one, init(keys[1]), 1e-4)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(many))
    model = make_model(name)
    _, y = jax.vmap(model.call, in_axes=(0, None))(many, inputs(0, BATCH, LENGTH))
    assert y.shape[:3] == (3, BATCH, LENGTH)
    assert np.abs(y[0] - y[1]).max() > 0
