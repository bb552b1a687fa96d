"""Diagonal linear recurrence h_t = a_t ⊙ h_{t-1} + x_t, the engine under the RG-LRU.

Two interchangeable ways to run it, a loop over time and a tree; both get the hand-written gradient
below, which keeps one state per step instead of the intermediate values of the loop or tree.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

ScanMethod = Literal["auto", "loop", "tree"]


def diagonal_scan(
    a: jax.Array, x: jax.Array, h0: jax.Array | None = None, *, method: ScanMethod = "auto"
) -> tuple[jax.Array, jax.Array]:
    """h_t = a_t ⊙ h_{t-1} + x_t for t = 1..T.

    Args:
      a, x: [B, T, R] real. A segment starts where a_t = 0.
      h0: [B, R] state before the first step; None is zero.
      method: "loop" (lax.scan: fastest on CPU), "tree" (lax.associative_scan: depth log T), or
        "auto", which picks "loop" on CPU and "tree" elsewhere.
    Returns h [B, T, R] and the last state [B, R], computed and returned in float32 at least.
    Differentiable in a, x and h0 in reverse mode, repeatedly. Raises ValueError for an unknown
    method.
    """
    if method == "auto":
        method = "loop" if jax.default_backend() == "cpu" else "tree"
    if method not in ("loop", "tree"):
        raise ValueError(f"method = {method!r}: must be 'auto', 'loop' or 'tree'")
    a, x = _at_least_float32(a), _at_least_float32(x)
    h0 = jnp.zeros_like(x[:, 0]) if h0 is None else h0.astype(x.dtype)
    h = a * h0[:, None] + x if x.shape[1] == 1 else _scan(method, a, x, h0)
    # Reading the last state off h adds its cotangent to that of h_T.
    return h, h[:, -1]


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _run(method: str, a: jax.Array, x: jax.Array, h0: jax.Array, reverse: bool) -> jax.Array:
    """h_t = a_t h_{t∓1} + x_t, from the front or, if reverse, from the back: [B, T, R]."""
    if method == "loop":

        def step(h, inputs):
            a_t, x_t = inputs
            h = a_t * h + x_t
            return h, h

        time_major = jnp.moveaxis(a, 1, 0), jnp.moveaxis(x, 1, 0)
        # Without unrolling: unrolling by 4 or 8 was two to four times slower on CPU.
        return jnp.moveaxis(lax.scan(step, h0, time_major, reverse=reverse)[1], 0, 1)

    def combine(earlier, later):
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    first = -1 if reverse else 0
    x = x.at[:, first].add(a[:, first] * h0)
    return lax.associative_scan(combine, (a, x), axis=1, reverse=reverse)[1]


def _scan_forwards(method: str, a: jax.Array, x: jax.Array, h0: jax.Array) -> jax.Array:
    return _run(method, a, x, h0, reverse=False)


def _scan_keep(method, a, x, h0):
    h = _run(method, a, x, h0, reverse=False)
    return h, (a, h, h0)


def _scan_backward(method, residuals, g):
    """With G_t = g_t + a_{t+1} G_{t+1}: dx_t = G_t, da_t = G_t h_{t-1}, dh_0 = a_1 G_1."""
    a, h, h0 = residuals
    next_a = jnp.pad(a[:, 1:], ((0, 0), (0, 1), (0, 0)))
    total = _run(method, next_a, g, jnp.zeros_like(h0), reverse=True)  # G [B, T, R]
    previous_h = jnp.concatenate([h0[:, None], h[:, :-1]], axis=1)
    return total * previous_h, total, a[:, 0] * total[:, 0]


_scan = jax.custom_vjp(_scan_forwards, nondiff_argnums=(0,))
_scan.defvjp(_scan_keep, _scan_backward)
