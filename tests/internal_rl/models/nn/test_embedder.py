"""The sequence embedder: what each read-out may see, with padding and packed segments."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from internal_rl.models.nn import SequenceEmbedder
from internal_rl.models.nn.embedder import Readout, segment_ends

LENGTH, IN, OUT = 9, 5, 7
every_readout = pytest.mark.parametrize("readout", get_args(Readout))


def make(readout):
    graph, params = nnx.split(SequenceEmbedder(IN, 8, 2, OUT, readout, nnx.Rngs(0)), nnx.Param)
    return jax.jit(lambda x, valid, reset: nnx.merge(graph, params)(x, valid, reset))


def data(batch=2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, LENGTH, IN)).astype(np.float32)


@every_readout
def test_who_sees_whom(readout):
    """influence[t, s]: does e_s change s_t? Two packed segments, 0-3 and 4-6, then padding."""
    embed = make(readout)
    reset = np.zeros((1, LENGTH), bool)
    reset[0, 4] = True
    valid = np.arange(LENGTH)[None] < 7
    jacobian = jax.jacrev(lambda x: embed(x, valid, reset)[0].sum(-1))(data(1))
    influence = np.abs(jacobian[:7, 0, :7]).max(-1) > 0
    same = np.zeros((7, 7), bool)
    same[:4, :4] = same[4:, 4:] = True
    expected = same & np.triu(np.ones((7, 7), bool)) if readout == "reverse" else same
    np.testing.assert_array_equal(influence, expected)
    # Nothing reads the padding.
    assert not np.asarray(jacobian)[:7, 0, 7:].any()


@every_readout
def test_padding_and_packing_equal_separate_sequences(readout):
    embed, x = make(readout), data()
    used = np.array([LENGTH, 6])
    valid = np.arange(LENGTH)[None] < used[:, None]
    x[1, 6:] = 1e3
    reset = np.zeros((2, LENGTH), bool)
    reset[0, [0, 4]] = reset[1, 5] = True
    y = np.asarray(embed(x, valid, reset))
    assert np.isfinite(y).all()
    for row, start, end in ((0, 0, 4), (0, 4, 9), (1, 0, 5), (1, 5, 6)):
        alone = embed(x[row : row + 1, start:end], None, None)[0]
        np.testing.assert_allclose(y[row, start:end], alone, atol=1e-5)
    unpacked = np.asarray(embed(x, valid, None))
    np.testing.assert_allclose(unpacked[1, :6], embed(x[1:, :6], None, None)[0], atol=1e-5)


def test_last_is_one_vector_and_the_others_vary():
    x = data()
    last = np.asarray(make("last")(x, None, None))
    np.testing.assert_array_equal(last, np.broadcast_to(last[:, :1], last.shape))
    for readout in ("reverse", "bidirectional"):
        assert np.asarray(make(readout)(x, None, None)).std(axis=1).min() > 1e-3


def test_segment_ends():
    reset = jnp.array([[0, 0, 1, 0, 1, 0, 0, 0]], bool)
    valid = jnp.arange(8)[None] < 6
    assert segment_ends((1, 8), valid, reset)[0].tolist() == [1, 1, 3, 3, 5, 5, 7, 7]
    assert segment_ends((1, 8), valid, None)[0].tolist() == [5] * 6 + [7] * 2
    assert segment_ends((1, 8), None, None)[0].tolist() == [7] * 8


def test_widths_that_few_gate_blocks_divide():
    embedder = SequenceEmbedder(3, 6, 1, 2, "last", nnx.Rngs(0))
    assert embedder(jnp.ones((1, 2, 3))).shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 8, 1, 2, "first"), "readout = 'first'.*'last'"),
        ((3, 8, 0, 2, "last"), "depth = 0"),
    ],
)
def test_impossible_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SequenceEmbedder(*arguments, nnx.Rngs(0))
