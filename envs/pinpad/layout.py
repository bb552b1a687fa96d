"""Layouts of gridworld-pinpad: which cells hold objects, walls and the agent (paper App. A)."""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray, UInt32


@struct.dataclass
class Layout:
    """Cells are numbered row * G + column. Any leading batch shape.

    Attributes:
        objects: cell of every colour.
        walls: cell of every wall.
        agent: the agent's first cell.
    """

    objects: Int[Array, "*b O"]
    walls: Int[Array, "*b W"]
    agent: Int[Array, "*b"]


def sample_layouts(
    key: PRNGKeyArray, n: int, grid_size: int, num_objects: int, num_walls: int
) -> Layout:
    """Draw n layouts, uniform over all placements of objects, walls and agent on distinct cells."""
    words = num_objects + num_walls + 1
    bits = jax.random.bits(key, (words, n), jnp.uint32)
    return layout_from_bits(bits, grid_size, num_objects)


def layout_from_bits(bits: UInt32[Array, "words *b"], grid_size: int, num_objects: int) -> Layout:
    """Uniform layout from O + W + 1 random words; they come first, so that batches are contiguous."""
    cells = distinct_cells(bits, grid_size**2)
    return Layout(
        objects=jnp.stack(cells[:num_objects], axis=-1),
        walls=_stack(cells[num_objects:-1], cells[-1]),
        agent=cells[-1],
    )


def _stack(cells: list[Array], like: Array) -> Array:
    # jnp.stack refuses an empty list, but a grid without walls is fine.
    if not cells:
        return jnp.zeros((*like.shape, 0), like.dtype)
    return jnp.stack(cells, axis=-1)


def distinct_cells(bits: UInt32[Array, "words *b"], num_cells: int) -> list[Array]:
    """Sample without replacement: one cell per word, all ordered choices equally likely.

    Draw i is uniform over [0, num_cells - i): the rank of cell i among the cells not taken yet.
    Going back through the earlier draws turns the rank into a cell, as in decoding a Lehmer code: a
    rank at or above that of a removed cell moves up by one. Elementwise and branchless, so far
    cheaper than sorting a permutation of all cells for every reset.
    """
    ranks = [scale_bits(word, num_cells - i) for i, word in enumerate(bits)]
    cells = []
    for i, cell in enumerate(ranks):
        for earlier in reversed(ranks[:i]):
            cell = cell + (cell >= earlier).astype(jnp.int32)
        cells.append(cell)
    return cells


def scale_bits(bits: UInt32[Array, "*b"], n: int) -> Int[Array, "*b"]:
    """floor(bits * n / 2^32) for n < 2^16: uniform over [0, n) up to a relative error of n / 2^32.

    The 48-bit product is formed from two halves, because 64-bit integers need x64.
    """
    low = (bits & jnp.uint32(0xFFFF)) * jnp.uint32(n)
    high = (bits >> jnp.uint32(16)) * jnp.uint32(n)
    return ((high + (low >> jnp.uint32(16))) >> jnp.uint32(16)).astype(jnp.int32)


def num_layouts(grid_size: int, num_objects: int, num_walls: int) -> int:
    """Number of distinct layouts, with objects and walls told apart."""
    return math.perm(grid_size**2, num_objects + num_walls + 1)
