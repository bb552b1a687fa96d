"""The metacontroller's non-causal sequence embedding s(e_1:T) (App. D.2): a small Hawk stack and a
read-out.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from internal_rl.config import ModelConfig
from internal_rl.models.nn.blocks import Stack
from internal_rl.models.nn.layers import dense, make_norm

Readout = Literal["last", "reverse", "bidirectional"]


class SequenceEmbedder(nnx.Module):
    """Embeds a whole sequence: e [B, T, in] -> s [B, T, out].

    Read-outs of the stack, after a final norm and a projection (the paper names none; `last` is its
    wording):
    last: the output at the last token, the same s at every t.
    reverse: the stack runs backwards in time, so s_t sees e_t:T.
    bidirectional: one stack each way, concatenated, so s_t sees everything.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_features: int,
        readout: Readout,
        rngs: nnx.Rngs,
        *,
        lru_blocks: int | None = None,
        scale: float = 1.0,
        conv_width: int = 4,
        norm: Literal["layernorm", "rmsnorm"] = "rmsnorm",
    ):
        """`width` is that of the residual stream and of the RG-LRU; the MLPs are twice as wide.

        `lru_blocks` is by default the largest of 4, 2 and 1 that divides `width`.

        Raises ValueError naming the setting for an unknown read-out or sizes that do not fit.
        """
        if readout not in ("last", "reverse", "bidirectional"):
            allowed = "'last', 'reverse' or 'bidirectional'"
            raise ValueError(f"embedding readout = {readout!r}: must be {allowed}")
        if depth < 1:
            raise ValueError(f"embedding depth = {depth}: must be at least 1")
        cfg = ModelConfig(
            mixer="hawk",
            width=width,
            depth=depth,
            mlp_width=2 * width,
            lru_width=width,
            lru_blocks=math.gcd(width, 4) if lru_blocks is None else lru_blocks,
            conv_width=conv_width,
            norm=norm,
            init_scale=scale,
        )
        directions = 2 if readout == "bidirectional" else 1
        self.embed = dense(in_features, width, scale=scale, rngs=rngs)
        self.stacks = nnx.List([Stack(cfg, depth, max_len=1, rngs=rngs) for _ in range(directions)])
        self.norms = nnx.List([make_norm(norm, width, rngs) for _ in range(directions)])
        self.out = dense(directions * width, out_features, scale=scale, rngs=rngs)
        self.readout: Readout = readout

    def __call__(
        self, x: jax.Array, valid: jax.Array | None = None, reset: jax.Array | None = None
    ) -> jax.Array:
        """x [B, T, in], valid and reset bool [B, T] -> s [B, T, out].

        `valid` marks right padding. `reset` marks the first tokens of packed segments, each of
        which is embedded on its own. s is finite but meaningless at the padding.
        """
        x = self.embed(x)
        if self.readout == "last":
            y = self.norms[0](self.stacks[0](x, None, reset)[1])
            end = segment_ends(x.shape[:2], valid, reset)  # [B, T]
            if reset is None:
                end = end[:, :1]  # one end per row
            s = self.out(jnp.take_along_axis(y, end[:, :, None], axis=1))
            return jnp.broadcast_to(s, (*x.shape[:2], s.shape[-1]))
        # The stack is causal, so that padding at the end cannot reach the tokens before it.
        backward = self.norms[0](self._run_backward(self.stacks[0], x, valid, reset))
        if self.readout == "reverse":
            return self.out(backward)
        forward = self.norms[1](self.stacks[1](x, None, reset)[1])
        return self.out(jnp.concatenate([backward, forward], axis=-1))

    def _run_backward(self, stack: Stack, x, valid, reset) -> jax.Array:
        """Runs the stack from each row's last valid token to its first; the padding stays at the
        end.
        """
        batch, length = x.shape[:2]
        time = np.arange(length, dtype=np.int32)[None]
        if valid is None:
            mirror = jnp.broadcast_to(time[:, ::-1], (batch, length))
        else:
            used = valid.sum(axis=1, dtype=jnp.int32, keepdims=True)
            mirror = jnp.where(time < used, used - 1 - time, time)
        if reset is not None:
            # Backwards, a segment begins at its last token.
            last = segment_ends((batch, length), valid, reset) == time
            reset = jnp.take_along_axis(last, mirror, axis=1)
        _, y = stack(jnp.take_along_axis(x, mirror[:, :, None], axis=1), None, reset)
        return jnp.take_along_axis(y, mirror[:, :, None], axis=1)


def segment_ends(
    shape: tuple[int, ...], valid: jax.Array | None, reset: jax.Array | None
) -> jax.Array:
    """Index of the last token of each token's segment, int32 [B, T]; T-1 at the right padding."""
    batch, length = shape
    time = np.arange(length, dtype=np.int32)[None]
    last = jnp.broadcast_to(time == length - 1, (batch, length))
    if reset is not None:
        last = last | jnp.pad(reset[:, 1:], ((0, 0), (0, 1)))
    if valid is not None:
        last = last | (valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1))))
    return lax.cummin(jnp.where(last, time, length - 1), axis=1, reverse=True)
