"""Norms, dense layers and the weight-decay mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from internal_rl.config import ModelConfig, OptimizerConfig
from internal_rl.models.nn import MLP, GRUHistory, Stack, decay_mask, dense, make_norm
from internal_rl.stages.optim import make_optimizer


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_norms_against_flax(kind):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 16)), jnp.float32) * 3 + 1
    scale = jnp.linspace(0.5, 2, 16)
    ours = make_norm(kind, 16, nnx.Rngs(0))
    if kind == "layernorm":
        theirs = nnx.LayerNorm(16, rngs=nnx.Rngs(0))
        ours.scale[...], ours.bias[...] = scale, scale - 1
        theirs.scale[...], theirs.bias[...] = scale, scale - 1
    else:
        theirs = nnx.RMSNorm(16, rngs=nnx.Rngs(0))
        ours.scale[...], theirs.scale[...] = scale - 1, scale  # ours is 1 + scale
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    np.testing.assert_allclose(ours(x[0, 0]), theirs(x)[0, 0], atol=1e-5)


def test_norm_follows_the_mixer_unless_named():
    kinds = {m: ModelConfig(mixer=m).norm_kind for m in ("transformer", "hawk")}
    assert kinds == {"transformer": "layernorm", "hawk": "rmsnorm"}
    assert ModelConfig(mixer="hawk", norm="layernorm").norm_kind == "layernorm"


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"norm = 'batchnorm'.*'layernorm'"):
        make_norm("batchnorm", 4, nnx.Rngs(0))  # pyright: ignore[reportArgumentType]


def test_dense_and_mlp():
    layer = dense(1000, 500, scale=0.1, rngs=nnx.Rngs(0))
    assert float(layer.kernel[...].var()) == pytest.approx(1e-4, rel=0.05)
    assert layer.bias is not None
    assert not layer.bias[...].any()
    assert dense(3, 4, scale=1.0, rngs=nnx.Rngs(0), use_bias=False).bias is None
    assert not dense(3, 4, scale=0.0, rngs=nnx.Rngs(0)).kernel[...].any()
    mlp = MLP(2, 3, 1, nnx.Rngs(0))
    mlp.hidden.kernel[...] = jnp.array([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]])
    mlp.out.kernel[...] = jnp.array([[1.0], [10.0], [100.0]])
    np.testing.assert_allclose(mlp(jnp.array([[3.0, 4.0], [-3.0, -4.0]])), [[803.0], [30.0]])


def test_decay_mask_spares_biases_norm_scales_a_and_position_tables():
    for mixer in ("transformer", "hawk"):
        stack = Stack(
            ModelConfig(mixer=mixer, width=8, lru_width=8), 1, max_len=2, rngs=nnx.Rngs(0)
        )
        params = nnx.state(stack, nnx.Param)
        assert jax.tree.structure(decay_mask(params)) == jax.tree.structure(params)
        mask = nnx.to_pure_dict(decay_mask(params))
        for path, decays in flatten_dict(mask).items():
            assert decays is path[-1].endswith("kernel"), path
        # The same names in a plain dict, as in a checkpoint, give the same answer.
        assert decay_mask(nnx.to_pure_dict(params)) == mask
    assert decay_mask({"action_log_std": jnp.zeros(2)}) == {"action_log_std": False}
    gru = nnx.to_pure_dict(nnx.state(GRUHistory(4, 3, nnx.Rngs(0)), nnx.Param))
    assert decay_mask(gru) == {
        "input": {"kernel": True, "bias": False},
        "recurrent_kernel": True,
        "candidate_bias": False,
    }


def test_adamw_takes_the_mask():
    params = nnx.state(make_norm("layernorm", 3, nnx.Rngs(0)), nnx.Param)
    params = {"norm": params, "dense": nnx.state(dense(2, 3, scale=1.0, rngs=nnx.Rngs(0)))}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.5), steps=1)
    gradients = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(updates["norm"]))
    np.testing.assert_allclose(
        updates["dense"]["kernel"][...], -0.05 * params["dense"]["kernel"][...], rtol=1e-5
    )
    assert not updates["dense"]["bias"][...].any()
