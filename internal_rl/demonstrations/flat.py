"""Episodes as flat arrays, and rows gathered from them: on the device, or by the host in the same layout.

Letters: E episodes, N steps, D windows (pieces of episodes), R rows, O observation, A action.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from envs.world import ObservationSpec
from internal_rl.demonstrations.contract import Batch
from internal_rl.demonstrations.packing import Packing


@flax.struct.dataclass
class Flat:
    """Episodes one after the other, as `disk` draws them; arrays of the device or of the host."""

    obs: Any
    """[N+E, *O]."""
    action: Any
    """[N, *A]."""
    starts: Any
    """[E+1], offsets in `action`; int32 on the device, int64 on the host."""
    goal: Any = None
    """[N]; None: unlabelled, and rows say -1."""
    subgoal: Any = None
    """[N]."""
    task: Any = None
    """[E]."""


def batch_of(
    data: Flat, episode: Any, first: Any, length: Any, layout: Packing, obs_spec: ObservationSpec
) -> Batch:
    """Rows from windows of episodes, NumPy in and out or JAX.

    Args:
        data: the episodes.
        episode: [D], which one each window is of.
        first: [D], its first step.
        length: [D], its steps.
        layout: of windows 0..D-1.
    """
    window = layout.trajectory
    time = layout.time.clip(None, length[window] - 1)
    number = episode[window]
    step = data.starts[number] + first[window] + time
    row = step + number  # each episode before has one observation more than actions
    xp = jnp if isinstance(step, jax.Array) else np
    unlabelled = xp.full_like(step, -1)

    def label(labels: Any, index: Any) -> Any:
        return (unlabelled if labels is None else labels[index]).astype(np.int32)

    return Batch(
        obs=data.obs[row].astype(obs_spec.dtype),
        next_obs=data.obs[row + 1].astype(obs_spec.dtype),
        action=data.action[step],
        goal=label(data.goal, step),
        subgoal=label(data.subgoal, step),
        reset=layout.reset,
        valid=layout.valid,
        task=label(data.task, number),
    )


def read_windows(
    arrays: Flat, episode: np.ndarray, first: np.ndarray, length: np.ndarray
) -> tuple[Flat, np.ndarray]:
    """Windows [D] of episodes as episodes of their own, in memory, in the order in which they lie in the files, so that
    reads move forward; and the place [D] of each window in that order."""
    begin = arrays.starts[episode] + first
    order = np.argsort(begin, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    begin, episode, length = begin[order], episode[order], length[order]
    step, starts = _ranges(begin, length)
    row, _ = _ranges(begin + episode, length + 1)

    def taken(column: Any, index: np.ndarray) -> Any:
        return None if column is None else np.asarray(column[index])

    read = Flat(
        obs=taken(arrays.obs, row),
        action=taken(arrays.action, step),
        starts=starts,
        goal=taken(arrays.goal, step),
        subgoal=taken(arrays.subgoal, step),
        task=taken(arrays.task, episode),
    )
    return read, place


def _ranges(begin: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers begin_i, ..., begin_i + length_i - 1 for all i, one after the other, and the offsets of each i."""
    starts = np.concatenate([[0], np.cumsum(length)])
    inside = np.arange(starts[-1]) - np.repeat(starts[:-1], length)
    return np.repeat(begin, length) + inside, starts


def host_pack(lengths: np.ndarray, rows: int, row_length: int) -> Packing:
    """`pack` on the host: the same layout, NumPy in and out."""
    at: list[int] = []
    row = offset = 0
    for length in lengths.tolist():
        if offset + length > row_length:
            row, offset = row + 1, 0
        if row == rows:
            break
        at.append(row * row_length + offset)
        offset += length
    placed = lengths[: len(at)]
    token, starts = _ranges(np.array(at), placed)
    trajectory, time = np.zeros((2, rows * row_length), np.int64)
    valid = np.zeros((rows * row_length,), bool)
    trajectory[token] = np.repeat(np.arange(len(at)), placed)
    time[token] = np.arange(starts[-1]) - np.repeat(starts[:-1], placed)
    valid[token] = True
    trajectory, time, valid = (x.reshape(rows, row_length) for x in (trajectory, time, valid))
    return _layout(trajectory, time, valid & (time == 0), valid)


def host_unpacked(lengths: np.ndarray, row_length: int) -> Packing:
    """`unpacked` on the host."""
    shape = (len(lengths), row_length)
    time = np.broadcast_to(np.arange(row_length)[None], shape)
    trajectory = np.broadcast_to(np.arange(len(lengths))[:, None], shape)
    return _layout(trajectory, time, time == 0, time < lengths[:, None])


def _layout(trajectory: Any, time: Any, reset: Any, valid: Any) -> Packing:
    return Packing(trajectory=trajectory, time=time, reset=reset, valid=valid)
