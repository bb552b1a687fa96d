"""Hawk's recurrent block with the RG-LRU (De et al. 2024, arXiv 2402.19427, section 2.4 and
appendix A).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax import lax

from internal_rl.models.nn.layers import dense, per_feature, scaled_normal
from internal_rl.models.nn.scan import ScanMethod, diagonal_scan

C = 8.0  # the paper's c, in a_t = a^(c r_t)
RING = (0.9, 0.999)
MAX_SQRT_GRADIENT = 1000.0


@jax.custom_jvp
def bounded_sqrt(x: jax.Array) -> jax.Array:
    """√x whose derivative is at most 1000, also at x = 0."""
    return jnp.sqrt(x)


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    floor = 1 / (4 * MAX_SQRT_GRADIENT**2)
    return bounded_sqrt(x), dx * (0.5 * lax.rsqrt(jnp.maximum(x, floor)))


def ring_init(key: jax.Array, width: int, applies_to: Literal["a", "a_pow_c"]) -> jax.Array:
    """a_param [width] such that exp(-softplus(a_param)), or its c-th power, is uniform by area on
    the ring.
    """
    low, high = RING
    radius = jnp.sqrt(jax.random.uniform(key, (width,), jnp.float32) * (high**2 - low**2) + low**2)
    rate = -jnp.log(radius) / (1.0 if applies_to == "a" else C)  # softplus(a_param)
    return jnp.log(jnp.expm1(rate))


class HawkCarry(struct.PyTreeNode):
    """State of one Hawk block; `fresh` makes the next token the first of a segment."""

    h: jax.Array  # [B, R]
    conv: jax.Array  # [B, W-1, R] the last inputs of the convolution, newest last
    fresh: jax.Array  # [B] bool


class Hawk(nnx.Module):
    """y_t = W_o (GELU(W_y x_t) ⊙ RG-LRU(conv(W_x x))_t).

    RG-LRU per channel, with gates r_t, i_t = σ(block-diagonal maps of the convolved input c_t):
    a_t = exp(-8 r_t softplus(a_param)),  h_t = a_t h_{t-1} + √(1 - a_t²) i_t c_t,
    and h_t = i_t c_t, unscaled, at the first token of a segment.
    """

    def __init__(
        self,
        width: int,
        lru_width: int,
        lru_blocks: int,
        *,
        conv_width: int = 4,
        ring_applies_to: Literal["a", "a_pow_c"] = "a",
        scale: float,
        out_scale: float,
        rngs: nnx.Rngs,
        scan_method: ScanMethod = "auto",
    ):
        """Raises ValueError naming the setting if one is out of range."""
        if lru_blocks < 1 or lru_width < 1 or lru_width % lru_blocks:
            raise ValueError(
                f"lru_width = {lru_width}: must be a positive multiple of lru_blocks = {lru_blocks}"
            )
        if conv_width < 1:
            raise ValueError(f"conv_width = {conv_width}: must be at least 1")
        if ring_applies_to not in ("a", "a_pow_c"):
            raise ValueError(f"ring_applies_to = {ring_applies_to!r}: must be 'a' or 'a_pow_c'")
        self.gate_branch = dense(width, lru_width, scale=scale, rngs=rngs)  # W_y
        self.main_branch = dense(width, lru_width, scale=scale, rngs=rngs)  # W_x
        self.out = dense(lru_width, width, scale=out_scale, rngs=rngs)
        init, size = scaled_normal(scale), lru_width // lru_blocks
        self.conv_kernel = nnx.Param(init(rngs.params(), (conv_width, lru_width), jnp.float32))
        self.conv_bias = nnx.Param(jnp.zeros((lru_width,), jnp.float32))

        def blocks() -> nnx.Param:  # [n, R/n, R/n]
            keys = jax.random.split(rngs.params(), lru_blocks)
            return nnx.Param(jnp.stack([init(key, (size, size), jnp.float32) for key in keys]))

        self.r_kernel, self.i_kernel = blocks(), blocks()  # W_a, W_x of the paper
        self.r_bias = nnx.Param(jnp.zeros((lru_blocks, size), jnp.float32))
        self.i_bias = nnx.Param(jnp.zeros((lru_blocks, size), jnp.float32))
        self.a_param = nnx.Param(ring_init(rngs.params(), lru_width, ring_applies_to))
        self.lru_width, self.lru_blocks, self.conv_width = lru_width, lru_blocks, conv_width
        self.scan_method: ScanMethod = scan_method

    def init_carry(self, batch_shape: tuple[int, ...], dtype=jnp.float32) -> HawkCarry:
        """The next token starts a segment, as if its `reset` were True."""
        return HawkCarry(
            jnp.zeros((*batch_shape, self.lru_width), dtype),
            jnp.zeros((*batch_shape, self.conv_width - 1, self.lru_width), dtype),
            jnp.ones(batch_shape, bool),
        )

    def __call__(
        self,
        x: jax.Array,
        carry: HawkCarry | None = None,
        reset: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[HawkCarry | None, jax.Array]:
        """x [B, T, D], reset and valid bool [B, T] -> (carry, y [B, T, D]).

        `valid` marks right padding: its rows are True then False. y is meaningless there.
        """
        batch, length = x.shape[:2]
        fresh = np.ones((1,), bool) if carry is None else carry.fresh
        first = (np.arange(length) == 0)[None] & fresh[:, None]  # [B or 1, T]
        if reset is not None:
            first = first | reset
        u = self.main_branch(x)  # [B, T, R]
        if carry is None:
            past = jnp.zeros((batch, self.conv_width - 1, self.lru_width), u.dtype)
        else:
            past = jnp.where(carry.fresh[:, None, None], 0, carry.conv)
        inputs = jnp.concatenate([past, u], axis=1)  # [B, W-1+T, R]
        segment = (
            None if reset is None else self._segments(jnp.broadcast_to(first, (batch, length)))
        )
        log_a, gated = self._rg_lru_inputs(self._convolve(inputs, segment, length))
        a, scaled = _decay(log_a, gated, first)
        if carry is not None and valid is not None:
            a = jnp.where(valid[:, :, None], a, 1)
            scaled = jnp.where(valid[:, :, None], scaled, 0)
        h, last = diagonal_scan(
            a, scaled, None if carry is None else carry.h, method=self.scan_method
        )
        y = self._output(h, x)
        if carry is None:
            return None, y
        return self._carry_after(carry, last, inputs, segment, valid), y

    def step(
        self, x: jax.Array, carry: HawkCarry, reset: jax.Array | None = None
    ) -> tuple[HawkCarry, jax.Array]:
        """One token: x [B, D], reset bool [B] -> (carry, y [B, D])."""
        first = carry.fresh if reset is None else carry.fresh | reset  # [B]
        past = jnp.where(first[:, None, None], 0, carry.conv)
        inputs = jnp.concatenate([past, self.main_branch(x)[:, None]], axis=1)  # [B, W, R]
        log_a, gated = self._rg_lru_inputs(self._convolve(inputs, None, 1))
        a, scaled = _decay(log_a[:, 0], gated[:, 0], first)
        h = a * carry.h + scaled
        return HawkCarry(h, inputs[:, 1:], jnp.zeros_like(carry.fresh)), self._output(h, x)

    def _segments(self, first: jax.Array) -> jax.Array:
        """Segment number of every entry of the convolution's input [B, W-1+T]; 0 is the carry's."""
        return jnp.pad(jnp.cumsum(first, axis=1), ((0, 0), (self.conv_width - 1, 0)))

    def _convolve(self, inputs: jax.Array, segment: jax.Array | None, length: int) -> jax.Array:
        """Causal depthwise convolution of [B, W-1+T, R] -> [B, T, R] that stops at segment starts.

        Tap s reads the token s steps back; the kernel's last row multiplies the current token.
        """
        oldest = self.conv_width - 1
        out = per_feature(self.conv_bias, inputs)
        for s in range(self.conv_width):
            past = slice(oldest - s, oldest - s + length)
            tap = inputs[:, past]
            if segment is not None and s > 0:
                same = segment[:, past] == segment[:, oldest:]
                tap = jnp.where(same[:, :, None], tap, 0)
            out = out + tap * self.conv_kernel[oldest - s].reshape(1, 1, -1)
        return out

    def _rg_lru_inputs(self, c: jax.Array) -> tuple[jax.Array, jax.Array]:
        """log a_t and i_t ⊙ c_t, both [B, T, R], from the convolved input."""
        # Blocks first, then plain matrix products: four times faster on CPU than the same einsum.
        blocks = c.reshape(-1, self.lru_blocks, self.lru_width // self.lru_blocks)
        blocks = blocks.transpose(1, 0, 2)  # [n, B·T, R/n]

        def gate(kernel: nnx.Param, bias: nnx.Param) -> jax.Array:
            # Full float32: errors of the decay would compound over time.
            logits = jnp.matmul(blocks, kernel[...], precision=lax.Precision.HIGHEST)
            logits = (logits + bias[...][:, None]).transpose(1, 0, 2).reshape(c.shape)
            return jax.nn.sigmoid(logits)

        r, i = gate(self.r_kernel, self.r_bias), gate(self.i_kernel, self.i_bias)
        softplus = jnp.logaddexp(self.a_param[...], 0)
        return -C * r * softplus.reshape(1, 1, -1), i * c

    def _output(self, h: jax.Array, x: jax.Array) -> jax.Array:
        return self.out(h * jax.nn.gelu(self.gate_branch(x), approximate=True))

    def _carry_after(self, carry, last, inputs, segment, valid) -> HawkCarry:
        """The carry at each row's last valid token."""
        slots = self.conv_width - 1
        batch, length = last.shape[0], inputs.shape[1] - slots
        if valid is None:
            used = jnp.full((batch,), length, jnp.int32)
        else:
            used = valid.sum(axis=1, dtype=jnp.int32)
        index = used[:, None] + np.arange(slots, dtype=np.int32)[None]  # [B, W-1]
        conv = jnp.take_along_axis(inputs, index[:, :, None], axis=1)
        if segment is not None and slots:
            numbers = jnp.take_along_axis(segment, index, axis=1)
            conv = jnp.where((numbers == numbers[:, -1:])[:, :, None], conv, 0)
        return HawkCarry(last, conv, carry.fresh & (used == 0))


def _decay(log_a: jax.Array, gated: jax.Array, first) -> tuple[jax.Array, jax.Array]:
    """a_t and √(1 - a_t²) i_t c_t, or 0 and i_t c_t at the first token of a segment."""
    first = first[..., None]
    multiplier = jnp.where(first, 1, bounded_sqrt(-jnp.expm1(2 * log_a)))
    return jnp.where(first, 0, jnp.exp(log_a)), multiplier * gated
