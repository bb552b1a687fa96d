"""Dense layers, norms, the block's MLP, and the weight-decay mask.

Every layer acts on the last axis, keeps the dtype of its input and works under strict dtype and
rank promotion.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

Norm = Literal["layernorm", "rmsnorm"]
NORM_EPSILON = 1e-6

# Parameters, by attribute name, that weight decay leaves alone. Names ending in "_bias" or "_scale"
# join them.
UNDECAYED = ("bias", "scale", "a_param", "log_std", "action_log_std", "obs_mean", "obs_std")


def per_feature(param: nnx.Param, x: jax.Array) -> jax.Array:
    """A vector parameter [F], reshaped to broadcast against the last axis of `x`."""
    return param[...].reshape((1,) * (x.ndim - 1) + (-1,))


def scaled_normal(scale: float) -> nnx.Initializer:
    """Normal with variance scale / fan-in, the initialiser of every weight matrix (App. D.1: scale
    0.1).
    """
    if scale < 0:
        raise ValueError(f"init scale = {scale}: must be at least 0")
    if scale == 0:  # variance_scaling refuses 0
        return nnx.initializers.zeros_init()
    return nnx.initializers.variance_scaling(scale, "fan_in", "normal")


def dense(
    in_features: int, out_features: int, *, scale: float, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    """Linear layer with kernel [in, out] of variance scale / in, and a zero bias."""
    return nnx.Linear(
        in_features, out_features, use_bias=use_bias, kernel_init=scaled_normal(scale), rngs=rngs
    )


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + 1e-6) · scale + bias over the last axis."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        del rngs  # deterministic; taken so that both norms are built alike
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        centred = x - x.mean(-1, keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + NORM_EPSILON)
        return centred * inverse * per_feature(self.scale, x) + per_feature(self.bias, x)


class RMSNorm(nnx.Module):
    """x / sqrt(mean x² + 1e-6) · (1 + scale) over the last axis, as in Griffin."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        inverse = lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + NORM_EPSILON)
        return x * inverse * (1 + per_feature(self.scale, x))


def make_norm(kind: Norm, width: int, rngs: nnx.Rngs) -> LayerNorm | RMSNorm:
    """The norm named `kind`. Raises ValueError for an unknown name."""
    match kind:
        case "layernorm":
            return LayerNorm(width, rngs=rngs)
        case "rmsnorm":
            return RMSNorm(width, rngs=rngs)
    raise ValueError(f"norm = {kind!r}: must be 'layernorm' or 'rmsnorm'")


class MLP(nnx.Module):
    """One hidden ReLU layer: [..., in] -> [..., out]."""

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        rngs: nnx.Rngs,
        *,
        scale: float = 0.1,
        out_scale: float | None = None,
    ):
        """`scale` is the variance scaling of both kernels, unless `out_scale` sets the second
        one's.
        """
        self.hidden = dense(in_features, hidden, scale=scale, rngs=rngs)
        out_scale = scale if out_scale is None else out_scale
        self.out = dense(hidden, out_features, scale=out_scale, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.relu(self.hidden(x)))


def decay_mask(params):
    """Which parameters weight decay acts on, for `optax.adamw(mask=decay_mask)`.

    Args: params, the state of `nnx.split(model, nnx.Param)` or any nested dict of arrays with the
    same names. Returns the same pytree with a Python bool at every leaf: False for biases, norm
    scales, the RG-LRU's a, relative-position tables and log standard deviations, True for
    everything else.
    """

    def decays(path, _leaf) -> bool:
        # nnx wraps each leaf in a Variable, whose own entry (".value") is no DictKey.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        name = next((n for n in reversed(names) if isinstance(n, str)), "")
        return not (name in UNDECAYED or name.endswith(("_bias", "_scale")))

    return jax.tree_util.tree_map_with_path(decays, params)
