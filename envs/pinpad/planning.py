"""Dynamic programming for gridworld-pinpad: distances and optimal actions (paper App. A).

Bellman updates on bits. With unit costs, round r of value iteration from infinity fixes exactly the
cells at distance r, so a set of cells per round is all there is to compute. A row of the grid is
one uint32, a set of cells is `uint32[G, n]` with the batch axis n last: a move is a shift, and one
round for a whole batch is a handful of vectorised operations.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, UInt32

from envs.pinpad.gridworld import NUM_ACTIONS
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import Tasks

UNREACHABLE = 1_000_000
"""Stands for infinity in distances and task lengths."""

# First of the four bits of `Plan.moves` (one per action) that say which actions are …
OPTIMAL, SAFE, ENTERS, MOVES = 0, 4, 8, 12


@struct.dataclass
class Plan:
    """What the expert knows of a layout, for each next colour c and each cell of the agent.

    Attributes:
        distances: steps to enter c, `UNREACHABLE` if impossible (and on walls).
        moves: bits 0-3 the optimal actions, 4-7 the actions that do not step on a wrong colour,
            8-11 those that enter c, 12-15 those that change the cell.
    """

    distances: Int[Array, "*b O C"]
    moves: Int[Array, "*b O C"]


def distances(layout: Layout, grid_size: int) -> Int[Array, "*b O C"]:
    """Steps to enter each colour from each cell, with wrong colours and walls as obstacles.

    From a colour's own cell it is the way out and back, since only entering counts. `UNREACHABLE`
    where impossible, and on wall cells.
    """
    return plan(layout, grid_size).distances


def plan(layout: Layout, grid_size: int) -> Plan:
    """Distances, and the sets of optimal and of harmless actions.

    Raises:
        ValueError: grid_size above 32 (a row must fit into 32 bits).
    """
    if grid_size > 32:
        raise ValueError(f"grid_size={grid_size}: allowed is at most 32")
    objects = _rows(layout.objects, grid_size)  # [O, G, n]
    walls = jnp.sum(_rows(layout.walls, grid_size), axis=0, dtype=jnp.uint32)[None]
    any_object = jnp.sum(objects, axis=0, dtype=jnp.uint32)[None]
    inside = jnp.full_like(walls, (1 << grid_size) - 1)
    levels, optimal = _search(objects, inside & ~walls, inside & ~(walls | any_object), grid_size)

    wrong = any_object & ~objects
    sets = (optimal, ~_look(wrong, grid_size), _look(objects, grid_size))
    free_ways = jnp.broadcast_to(inside & ~walls, objects.shape)
    moves = jnp.concatenate([*sets, _look(free_ways, grid_size)])
    steps = _numbers(levels, grid_size, layout.agent.shape)
    return Plan(
        distances=jnp.where(steps == 0, UNREACHABLE, steps),
        moves=_numbers(moves, grid_size, layout.agent.shape),
    )


def _search(
    goals: UInt32[Array, "O G n"],
    standable: UInt32[Array, "1 G n"],
    free: UInt32[Array, "1 G n"],
    grid_size: int,
) -> tuple[UInt32[Array, "P O G n"], UInt32[Array, "4 O G n"]]:
    """Breadth-first from every goal at once, at most G² rounds.

    Returns the distances, bit p of them in plane p (0: not reached), and the cells from which
    each action is optimal.
    """
    num_planes = (grid_size**2).bit_length()
    planes = jnp.arange(num_planes, dtype=jnp.uint32)[:, None, None, None]

    def more(carry):
        frontier, _, _, _, distance = carry
        return jnp.any(frontier != 0) & (distance <= grid_size**2)

    def expand(carry):
        frontier, reached, levels, optimal, distance = carry
        towards = _look(frontier, grid_size) & (standable & ~reached)[None]  # [4, O, G, n]
        new = towards[0] | towards[1] | towards[2] | towards[3]
        digit = (distance >> planes) & jnp.uint32(1)
        levels = levels | (new[None] & (jnp.uint32(0) - digit))
        # Colours are start cells only: nobody walks through them, so they are not expanded.
        return new & free, reached | new, levels, optimal | towards, distance + jnp.uint32(1)

    empty = jnp.zeros_like(goals)
    levels = jnp.zeros((num_planes, *goals.shape), jnp.uint32)
    optimal = jnp.zeros((NUM_ACTIONS, *goals.shape), jnp.uint32)
    carry = (goals, empty, levels, optimal, jnp.uint32(1))
    _, _, levels, optimal, _ = jax.lax.while_loop(more, expand, carry)
    return levels, optimal


def _rows(cells: Int[Array, "*b k"], grid_size: int) -> UInt32[Array, "k G n"]:
    """One-cell sets, as rows of bits."""
    n = math.prod(cells.shape[:-1])  # not -1, which fails without walls
    cells = cells.reshape(n, cells.shape[-1]).T[:, None]  # [k, 1, n]
    row, column = cells // grid_size, cells % grid_size
    bit = jnp.uint32(1) << column.astype(jnp.uint32)
    index = jnp.arange(grid_size, dtype=jnp.int32)[None, :, None]
    return jnp.where(row == index, bit, jnp.uint32(0))


def _look(cells: UInt32[Array, "k G n"], grid_size: int) -> UInt32[Array, "4 k G n"]:
    """For each action, the cells from which it leads to one of `cells` (before walls count)."""
    edge = jnp.zeros_like(cells[:, :1])
    up = jnp.concatenate([edge, cells[:, :-1]], axis=1)
    down = jnp.concatenate([cells[:, 1:], edge], axis=1)
    left = (cells << jnp.uint32(1)) & jnp.uint32((1 << grid_size) - 1)
    return jnp.stack([up, down, left, cells >> jnp.uint32(1)])


def _numbers(
    planes: UInt32[Array, "P O G n"], grid_size: int, batch_shape: tuple[int, ...]
) -> Int[Array, "*b O C"]:
    """One number per cell, whose bit p says whether the cell is in plane p."""
    planes = jnp.moveaxis(planes, -1, 1)[..., None]  # [P, n, O, G, 1]
    column = jnp.arange(grid_size, dtype=jnp.uint32).reshape(1, 1, 1, -1)
    total = jnp.zeros((*planes.shape[1:-1], grid_size), jnp.uint32)
    for p in range(planes.shape[0]):
        total = total | (((planes[p] >> column) & jnp.uint32(1)) << jnp.uint32(p))
    return total.astype(jnp.int32).reshape(*batch_shape, planes.shape[2], grid_size**2)


def task_length(
    distances: Int[Array, "n O C"], layout: Layout, tasks: Tasks, task_ids: Int[Array, " n"]
) -> Int[Array, " n"]:
    """Moves of the shortest solution of each task in its layout, `UNREACHABLE` if there is none.

    The legs can be shortened one by one, because every leg ends in a known cell.
    """
    sequences = tasks.sequences[task_ids]  # [n, K]
    index = jnp.arange(sequences.shape[-1], dtype=jnp.int32)
    valid = index[None] < tasks.lengths[task_ids][:, None]
    colours = jnp.maximum(sequences, 0)
    ends = jnp.take_along_axis(layout.objects, colours, axis=-1)
    starts = jnp.concatenate([layout.agent[:, None], ends[:, :-1]], axis=-1)
    n, _, cells = distances.shape
    legs = jnp.take_along_axis(distances.reshape(n, -1), colours * cells + starts, axis=-1)
    unsolvable = jnp.any(valid & (legs == UNREACHABLE), axis=-1)
    total = jnp.sum(jnp.where(valid & (legs < UNREACHABLE), legs, 0), axis=-1)
    return jnp.where(unsolvable, UNREACHABLE, total)
