"""Writing into the residual stream: ê = e + U e (paper App. D.2).

Low-rank controls keep U as two factors, U = B A with A [r, D] and B [D, r], and never build the D×D matrix.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class LowRankControl:
    """U = B A, any leading batch shape."""

    a: jax.Array
    """[..., r, D] reads the residual stream."""
    b: jax.Array
    """[..., D, r] writes it."""


@flax.struct.dataclass
class FullControl:
    """U [..., D, D]."""

    u: jax.Array


Control = LowRankControl | FullControl


def apply_control(e: jax.Array, control: Control) -> jax.Array:
    """ê = e + U e for e [..., D]. A zero U returns e bit for bit."""
    if isinstance(control, LowRankControl):
        read = jnp.einsum("...rd,...d->...r", control.a, e)
        return e + jnp.einsum("...dr,...r->...d", control.b, read)
    return e + jnp.einsum("...ij,...j->...i", control.u, e)


def dense_control(control: Control) -> jax.Array:
    """U as a matrix [..., D, D]; for analyses and tests."""
    if isinstance(control, LowRankControl):
        return control.b @ control.a
    return control.u
