"""Layouts of gridworld-pinpad: which cells hold objects, walls and the agent (paper App. A)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

MAX_PRODUCT = 2**17
"""Bound on what one 32-bit random word is divided into."""


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
    radices = cell_radices(grid_size, num_objects, num_walls)
    words = jax.random.bits(key, (num_words(radices), n), jnp.uint32)
    return layout_from_ranks(mixed_radix(words, radices), num_objects)


def cell_radices(grid_size: int, num_objects: int, num_walls: int) -> tuple[int, ...]:
    """How many cells are free for each object, each wall and the agent, one after the other."""
    return tuple(grid_size**2 - i for i in range(num_objects + num_walls + 1))


def layout_from_ranks(ranks: list[Int[Array, "*b"]], num_objects: int) -> Layout:
    """Layout in which each thing stands on the free cell of the given rank (see `cell_radices`).

    Going back through the earlier ranks turns a rank among the free cells into a cell, as in
    decoding a Lehmer code: a rank at or above that of a removed cell moves up by one. Each layout
    has exactly one list of ranks, so uniform ranks give uniform layouts. Elementwise and
    branchless, so far cheaper than sorting a permutation of all cells at every reset.
    """
    cells = []
    for i, cell in enumerate(ranks):
        for earlier in reversed(ranks[:i]):
            cell = cell + (cell >= earlier).astype(jnp.int32)
        cells.append(cell)
    *things, agent = cells
    walls = things[num_objects:]
    return Layout(
        objects=jnp.stack(things[:num_objects], axis=-1),
        walls=jnp.stack(walls, axis=-1) if walls else jnp.zeros((*agent.shape, 0), jnp.int32),
        agent=agent,
    )


def mixed_radix(words: UInt32[Array, "words *b"], radices: Sequence[int]) -> list[Array]:
    """Independent uniform integers, number i in [0, radices[i]), as digits of random words.

    Several digits share a word while the product of their radices stays below `MAX_PRODUCT`; random
    bits are the most expensive part of a reset. No outcome is more than one part in 2^15 (the
    product over 2^32) more likely than another. Division is the right tool for another reason
    too: XLA computes its result once, where it would inline cheaper arithmetic into every cell.
    """
    digits = []
    for word, group in zip(words, _groups(radices), strict=True):
        for radix in group:
            divisor = jnp.full_like(word, radix)
            digits.append(jax.lax.rem(word, divisor).astype(jnp.int32))
            word = jax.lax.div(word, divisor)
    return digits


def num_words(radices: Sequence[int]) -> int:
    """Random words that `mixed_radix` needs."""
    return len(_groups(radices))


def _groups(radices: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for radix in radices:
        if groups and math.prod(groups[-1]) * radix <= MAX_PRODUCT:
            groups[-1].append(radix)
        else:
            groups.append([radix])
    return groups


def apply_symmetry(
    cells: Int[Array, "*#b"], element: Int[Array, "*#b"], grid_size: int
) -> Int[Array, "..."]:
    """Cells of the grid after one of the square's eight symmetries.

    Args:
        cells: row * G + column.
        element: 0..7, broadcast against `cells`; bit 0 turns the rows over, bit 1 the columns, and bit 2 then
            exchanges rows and columns. 0 leaves the grid as it is.
        grid_size: G.
    """
    size = jnp.int32(grid_size)
    row, column = jax.lax.div(cells, size), jax.lax.rem(cells, size)
    row = jnp.where((element & 1) > 0, size - 1 - row, row)
    column = jnp.where((element & 2) > 0, size - 1 - column, column)
    swap = (element & 4) > 0
    return jnp.where(swap, column * size + row, row * size + column)
