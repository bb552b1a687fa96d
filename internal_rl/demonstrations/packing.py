"""Several short trajectories in one row of tokens, so that a batch holds little padding.

Rows are filled in order; a trajectory that does not fit into the rest of a row starts the next one (next-fit), so no
trajectory is ever cut. Resets keep neighbours apart inside the sequence mixers.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packing:
    """Where each token of the rows comes from; all arrays [rows, row_length]."""

    trajectory: jax.Array
    """Index of the trajectory, int32."""
    time: jax.Array
    """Step inside it, int32."""
    reset: jax.Array
    """First token of a trajectory, bool."""
    valid: jax.Array
    """The token belongs to a trajectory, bool."""


def pack(lengths: jax.Array, rows: int, row_length: int) -> Packing:
    """Lay trajectories of lengths [N] (each in 1..row_length) into rows; those past the last row are left out."""

    def place(carry, length):
        row, offset = carry
        fits = offset + length <= row_length
        row = jnp.where(fits, row, row + 1)
        offset = jnp.where(fits, offset, 0)
        return (row, offset + length), (row, offset)

    zero = jnp.zeros((), jnp.int32)
    _, (row, offset) = jax.lax.scan(place, (zero, zero), lengths, unroll=8)

    step = jnp.arange(row_length, dtype=jnp.int32)[None, :]  # [1, L]
    used = (step < lengths[:, None]) & (row[:, None] < rows)
    # Unused positions are sent out of bounds, where `mode="drop"` forgets them.
    target = jnp.where(used, row[:, None] * row_length + offset[:, None] + step, rows * row_length)
    source = jnp.arange(lengths.shape[0], dtype=jnp.int32)[:, None] * row_length + step
    flat = jnp.full((rows * row_length,), -1, jnp.int32)
    flat = flat.at[target.reshape(-1)].set(source.reshape(-1), mode="drop")
    flat = flat.reshape(rows, row_length)
    valid = flat >= 0
    source = jnp.maximum(flat, 0)
    time = source % row_length
    return Packing(
        trajectory=source // row_length, time=time, reset=valid & (time == 0), valid=valid
    )


def unpacked(lengths: jax.Array, row_length: int) -> Packing:
    """One trajectory per row, padded on the right."""
    count = lengths.shape[0]
    time = jnp.broadcast_to(jnp.arange(row_length, dtype=jnp.int32)[None, :], (count, row_length))
    trajectory = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[:, None], time.shape)
    valid = time < lengths[:, None]
    return Packing(trajectory=trajectory, time=time, reset=time == 0, valid=valid)
