"""Attention, Hawk and the GRU against NumPy loops; initial values, gradients, bad settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from internal_rl.config import ModelConfig
from internal_rl.models.nn import Attention, Hawk, Stack, make_mixer
from internal_rl.models.nn.attention import causal_buckets
from internal_rl.models.nn.hawk import bounded_sqrt, ring_init
from tests.internal_rl.models.nn.models import WIDTH, inputs, make_model

# First distance of every bucket for 32 buckets and maximal distance 128.
FIRST_DISTANCES = [*range(17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
RESET = np.array([[0, 0, 1, 0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1, 0, 0, 0]], bool)


def numpy_params(name: str) -> tuple:
    """(model, parameters as nested dict of float64 arrays)."""
    model = make_model(name)
    pure = nnx.to_pure_dict(model.params)
    return model, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), pure)


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_layer_norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def numpy_rms_norm(p, x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + p["scale"])


def numpy_mlp(p, x):
    return linear(p["out"], np.maximum(linear(p["hidden"], x), 0))


def numpy_attention(p, x, reset, heads, buckets, window):
    """One token and one head at a time, x [T, D]."""
    query, key, value = (linear(p[n], x) for n in ("query", "key", "value"))
    size = query.shape[1] // heads
    rows = []
    for i in range(len(x)):
        start = max([0, i - window + 1, *(t for t in range(i + 1) if reset[t])])
        mixed = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            logits = [
                query[i, part] @ key[j, part] / np.sqrt(size)
                + p["relative_bias"][buckets[i - j], h]
                for j in range(start, i + 1)
            ]
            weights = np.exp(logits) / np.exp(logits).sum()
            mixed.append(weights @ value[start : i + 1, part])
        rows.append(np.concatenate(mixed))
    return linear(p["out"], np.stack(rows))


def numpy_hawk(p, x, reset, blocks):
    """The recurrent block one token at a time, x [T, D]; the first token starts a segment."""
    gate, u = linear(p["gate_branch"], x), linear(p["main_branch"], x)
    gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    h, rows, start = np.zeros(u.shape[1]), [], 0
    for t in range(len(x)):
        first = t == 0 or reset[t]
        start = t if first else start
        c = p["conv_bias"] + sum(
            p["conv_kernel"][3 - s] * u[t - s] for s in range(4) if t - s >= start
        )
        pieces = c.reshape(blocks, -1)
        r, i = (
            sigmoid(
                np.concatenate([v @ w + b for v, w, b in zip(pieces, kernel, bias, strict=True)])
            )
            for kernel, bias in ((p["r_kernel"], p["r_bias"]), (p["i_kernel"], p["i_bias"]))
        )
        a = np.exp(-8 * r * np.log1p(np.exp(p["a_param"])))
        h = i * c if first else a * h + np.sqrt(1 - a**2) * i * c
        rows.append(h)
    return linear(p["out"], np.stack(rows) * gelu)


def numpy_gru(p, x, reset):
    width = p["candidate_bias"].shape[0]
    v_r, v_u, v_n = np.split(p["recurrent_kernel"], 3, axis=1)
    h, rows = np.zeros(width), []
    for t in range(len(x)):
        h = np.zeros(width) if reset[t] else h
        in_r, in_u, in_n = np.split(linear(p["input"], x[t]), 3)
        r, u = sigmoid(in_r + h @ v_r), sigmoid(in_u + h @ v_u)
        n = np.tanh(in_n + r * (h @ v_n + p["candidate_bias"]))
        h = (1 - u) * n + u * h
        rows.append(h)
    return np.stack(rows)


@pytest.mark.parametrize("name", ["transformer", "window", "hawk", "hawk-tree", "gru"])
def test_against_a_loop_in_numpy(name):
    model, p = numpy_params(name)
    x = inputs(0, *RESET.shape)
    _, y = model.call(model.params, x, None, RESET)
    for row in range(len(x)):
        if name == "gru":
            expected = numpy_gru(p, x[row].astype(np.float64), RESET[row])
        else:
            expected = x[row].astype(np.float64)
            block = p["blocks"][0]
            if name.startswith("hawk"):
                norm = numpy_rms_norm
                normed = norm(block["mixer_norm"], expected)
                mixed = numpy_hawk(block["mixer"], normed, RESET[row], 3)
            else:
                norm = numpy_layer_norm
                normed = norm(block["mixer_norm"], expected)
                # 4 buckets, maximal distance 8: 0, 1, then 2-3 and 4+ by the formula.
                buckets = [0, 1, 2, 2, 3, 3, 3, 3, 3]
                window = 5 if name == "window" else 99
                mixed = numpy_attention(block["mixer"], normed, RESET[row], 2, buckets, window)
            expected = expected + mixed
            expected = expected + numpy_mlp(block["mlp"], norm(block["mlp_norm"], expected))
        np.testing.assert_allclose(y[row], expected, atol=1e-5)


def test_t5_buckets():
    buckets = causal_buckets(np.arange(300), 32, 128)
    assert [int(np.argmax(buckets == b)) for b in range(32)] == FIRST_DISTANCES
    assert (np.diff(buckets) >= 0).all()
    assert (buckets[113:] == 31).all()
    assert (causal_buckets(np.array([-3, -1]), 32, 128) == 0).all()


def test_first_segment_token_enters_unscaled_but_a_zero_state_does_not_reset():
    hawk = Hawk(WIDTH, 8, 2, scale=1.0, out_scale=1.0, rngs=nnx.Rngs(0))
    x, start = jnp.asarray(inputs(0, 2, 1)[:, 0]), hawk.init_carry((2,))
    fresh, _ = hawk.step(x, start)
    continued, _ = hawk.step(x, start.replace(fresh=jnp.zeros((2,), bool)))
    assert (jnp.abs(continued.h) < jnp.abs(fresh.h)).all()
    reset, _ = hawk.step(
        x, start.replace(fresh=jnp.zeros((2,), bool)), reset=jnp.array([True, False])
    )
    np.testing.assert_array_equal(reset.h[0], fresh.h[0])
    np.testing.assert_array_equal(reset.h[1], continued.h[1])


def test_bounded_sqrt():
    x = jnp.array([0.0, 1e-9, 0.25])
    np.testing.assert_allclose(bounded_sqrt(x), np.sqrt(x))
    np.testing.assert_allclose(jax.vmap(jax.grad(bounded_sqrt))(x), [1000, 1000, 1], rtol=1e-5)


@pytest.mark.parametrize("gate_bias", [-60.0, 60.0])
@pytest.mark.parametrize("a_param", [-100.0, 30.0])
def test_hawk_gradients_are_finite_at_extreme_gates(gate_bias, a_param):
    """r → 0 and 1, a → 1 and 0."""
    hawk = Hawk(WIDTH, 8, 2, scale=1.0, out_scale=1.0, rngs=nnx.Rngs(0))
    hawk.r_bias[...] = jnp.full_like(hawk.r_bias[...], gate_bias)
    hawk.a_param[...] = jnp.full_like(hawk.a_param[...], a_param)
    graph, params = nnx.split(hawk, nnx.Param)

    def loss(params, x):
        return (nnx.merge(graph, params)(x)[1] ** 2).sum()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, inputs(0, 2, 20))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("applies_to", ["a", "a_pow_c"])
def test_ring_initialisation(applies_to):
    a = np.exp(-np.logaddexp(ring_init(jax.random.key(0), 100_000, applies_to), 0))
    radius = a if applies_to == "a" else a**8
    tolerance = 1e-4
    assert radius.min() >= 0.9 - tolerance
    assert radius.max() <= 0.999 + tolerance
    assert radius.mean() == pytest.approx(0.950, abs=0.002)
    assert (radius**2).mean() == pytest.approx(0.904, abs=0.003)


@pytest.mark.parametrize("residual_init", ["same", "depth_scaled"])
def test_every_matrix_has_the_variance_it_should(residual_init):
    cfg = ModelConfig(
        width=300,
        depth=10,
        mlp_width=300,
        num_heads=10,
        head_dim=30,
        num_buckets=1000,
        max_distance=2000,
        lru_width=600,
        lru_blocks=2,
        init_scale=0.1,
        residual_init=residual_init,
    )
    fan_in = {"conv_kernel": 4, "relative_bias": 1000, "r_kernel": 300, "i_kernel": 300}
    for mixer in ("transformer", "hawk"):
        stack = Stack(dataclasses.replace(cfg, mixer=mixer), 1, max_len=4, rngs=nnx.Rngs(0))
        for path, leaf in nnx.to_flat_state(nnx.state(stack, nnx.Param)):
            if path[-1] in fan_in or path[-1] == "kernel":
                rows = fan_in.get(path[-1], leaf[...].shape[0])
                writes = path[-2] == "out" and residual_init == "depth_scaled"
                scale = 2 / 10 if writes else 0.1
                assert float(leaf[...].var()) * rows == pytest.approx(scale, rel=0.1), path
            elif path[-1].endswith("bias"):
                assert not leaf[...].any(), path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixer": "mamba"}, "mixer = 'mamba'"),
        ({"mixer": "hawk", "lru_width": 10, "lru_blocks": 4}, "lru_width = 10.*lru_blocks = 4"),
        ({"mixer": "hawk", "conv_width": 0}, "conv_width = 0"),
        ({"mixer": "hawk", "ring_applies_to": "b"}, "ring_applies_to = 'b'"),
        ({"num_buckets": 5}, "num_buckets = 5: must be even"),
        ({"num_buckets": 32, "max_distance": 16}, "max_distance = 16"),
        ({"num_heads": 0}, "num_heads = 0"),
        ({"width": 0}, "width = 0"),
        ({"residual_init": "none"}, "residual_init = 'none'"),
        ({"init_scale": -1.0}, "init scale = -1"),
    ],
)
def test_impossible_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_mixer(dataclasses.replace(ModelConfig(), **change), nnx.Rngs(0), 8)


def test_impossible_cache_and_stack_are_named():
    with pytest.raises(ValueError, match="max_len = 0"):
        make_mixer(ModelConfig(), nnx.Rngs(0), 0)
    with pytest.raises(ValueError, match="num_blocks = -1"):
        Stack(ModelConfig(), -1, max_len=4, rngs=nnx.Rngs(0))


def test_empty_stack_is_the_identity():
    stack, x = Stack(ModelConfig(), 0, max_len=4, rngs=nnx.Rngs(0)), inputs(0, 2, 3)
    carry, y = stack(jnp.asarray(x), stack.init_carry((2,)))
    assert carry == ()
    np.testing.assert_array_equal(y, x)


def test_configuration_reaches_the_mixer():
    mixer = make_mixer(ModelConfig(), nnx.Rngs(0), 8)
    assert isinstance(mixer, Attention)
    assert mixer.init_carry((2,)).keys.shape == (2, 4, 8, 64)
    hawk = make_mixer(ModelConfig(mixer="hawk", conv_width=2), nnx.Rngs(0), 8)
    assert isinstance(hawk, Hawk)
    assert hawk.init_carry((2,)).conv.shape == (2, 1, 256)
