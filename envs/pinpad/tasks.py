"""Tasks of gridworld-pinpad and ant-pinpad as data (paper App. A, Tables A1 and A2).

A task is a sequence of colours. Tasks are arrays, so one compiled step serves every task set.
"""

from collections.abc import Sequence
from itertools import pairwise, product

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int

from envs.pinpad.tables import POST_A1, POST_A2, TABLE_A1, TABLE_A2

__all__ = [
    "PADDING",
    "POST_A1",
    "POST_A2",
    "TABLE_A1",
    "TABLE_A2",
    "Tasks",
    "decode_tasks",
    "encode_tasks",
    "minimum_moves",
]

PADDING = -1
"""Fills `Tasks.sequences` after the end of a task; no colour has this index."""


@struct.dataclass
class Tasks:
    """A set of N tasks of at most K colours.

    Attributes:
        sequences: colours to visit in order, padded with -1.
        lengths: number of colours of each task.
    """

    sequences: Int[Array, "N K"]
    lengths: Int[Array, " N"]


def encode_tasks(tasks: Sequence[str], num_objects: int) -> Tasks:
    """Turn strings such as "032" (one digit per colour) into arrays.

    Args:
        tasks: at least one task; the first digit is the first colour to visit.
        num_objects: O, the number of colours that exist.

    Raises:
        ValueError: no task, an empty task, a character that is not a digit, or a colour >= O.
    """
    if isinstance(tasks, str):
        raise ValueError(f"tasks={tasks!r} is one string; expected a sequence of strings")
    if not tasks:
        raise ValueError(f"tasks={tasks!r} is empty; expected at least one task such as '032'")
    for task in tasks:
        _check_task(task, num_objects)
    lengths = np.array([len(task) for task in tasks], np.int32)
    sequences = np.full((len(tasks), lengths.max()), PADDING, np.int32)
    for row, task in zip(sequences, tasks, strict=True):
        row[: len(task)] = [int(colour) for colour in task]
    return Tasks(sequences=jnp.asarray(sequences), lengths=jnp.asarray(lengths))


def _check_task(task: str, num_objects: int) -> None:
    if not task:
        raise ValueError("task '' is empty; expected one digit per colour, such as '032'")
    for character in task:
        if character not in "0123456789":  # str.isdigit also accepts '²' and other scripts
            raise ValueError(f"task {task!r}: {character!r} is not a colour; expected digits 0-9")
        if int(character) >= num_objects:
            raise ValueError(
                f"task {task!r}: colour {character} does not exist; num_objects={num_objects} "
                f"allows 0..{num_objects - 1}"
            )


def decode_tasks(tasks: Tasks) -> tuple[str, ...]:
    """Inverse of `encode_tasks`."""
    sequences, lengths = np.asarray(tasks.sequences), np.asarray(tasks.lengths)
    return tuple(
        "".join(str(colour) for colour in row[:length])
        for row, length in zip(sequences, lengths, strict=True)
    )


def minimum_moves(task: str) -> int:
    """Lower bound on the moves that solve a task, over all grids and layouts.

    A grid is bipartite: one move changes the parity of row + column. So a leg between two colours
    costs at least one move if their cells differ in parity and at least two if they agree, which
    includes leaving a colour and coming back. The bound is the cheapest assignment of parities to
    the colours, plus one for the first leg.
    """
    colours = sorted(set(task))
    cheapest = min(
        sum(2 - (parity[a] ^ parity[b]) for a, b in pairwise(task))
        for bits in product((0, 1), repeat=len(colours))
        for parity in (dict(zip(colours, bits, strict=True)),)
    )
    return 1 + cheapest
