"""Whether demonstrations keep their contract, for those of ours, of a user's file and on disk alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.contract import Batch, Demonstrations, HostDemonstrations
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.folder_check import check_folder
from internal_rl.demonstrations.recorded import open_recorded
from internal_rl.demonstrations.values import fault, label_fault

KEYS = 3
"""Batches that are looked at, per behaviour."""


def check_demonstrations(
    demonstrations: Any,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    *,
    horizon: int | None = None,
    num_goals: int | None = None,
    count: int = 8,
    seed: int = 0,
) -> list[str]:
    """Check demonstrations against their contract and against what one observation and one action are.

    Args:
        demonstrations: an object that has the members of `Demonstrations` or `HostDemonstrations`, or a folder.
        horizon: the world's, tokens per row; None: any.
        num_goals: the world's; None: any.
        count: rows per batch; a few batches are drawn.

    Whether the first token of a clean row is the first step of an episode cannot be seen; that it is a reset can.

    Returns:
        Problems, one line each that says what was found and what is allowed; none if all is well.
    """
    if isinstance(demonstrations, (str, Path)):
        found = check_folder(demonstrations, obs_spec, action_spec, num_goals or 0).problems
        if found:
            return list(found)
        num_goals = num_goals or None  # a world without goals leaves the labels out
        length = horizon or int(open_folder(demonstrations, verify=False).lengths.max())
        demonstrations = open_recorded(
            demonstrations, (obs_spec, action_spec), horizon=length, packing=True, verify=False
        )
    problems = _object(demonstrations, obs_spec)
    make = _source(demonstrations, count, seed)
    if make is None:
        kind = type(demonstrations).__name__
        return [*problems, f"{kind} has neither data and rows nor host_rows; allowed is either"]
    for clean in (True, False):
        try:
            batches = [make(number, clean) for number in range(KEYS)]
            problems += _repeats(make, batches, clean)
            if isinstance(demonstrations, Demonstrations):
                problems += _unjitted(demonstrations, batches[0], count, seed, clean)
        except Exception as error:
            # A user's code may raise anything; whatever it is, that is what is wrong.
            problems.append(f"rows(clean={clean}) raised {type(error).__name__}: {_line(error)}")
            continue
        for batch in batches:
            shapes = _shapes(batch, obs_spec, action_spec, count, horizon)
            lines = shapes or [
                *_layout(batch, clean),
                *_values(batch, obs_spec, action_spec, num_goals),
            ]
            if lines:
                problems += [f"rows(clean={clean}): {line}" for line in lines]
                break
    return problems


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _object(demonstrations: Any, obs_spec: ObservationSpec) -> list[str]:
    lines = []
    try:
        hash(demonstrations)
    except TypeError as error:
        lines.append(f"is not hashable ({error}); allowed: a frozen dataclass of hashable fields")
    statistics = getattr(demonstrations, "obs_statistics", None)
    if statistics is None:
        return lines
    shape = obs_spec.shape
    if len(statistics) != 2 or any(np.shape(numbers) != shape for numbers in statistics):
        return [*lines, f"obs_statistics has not two tuples of shape {shape}"]
    mean, std = (np.asarray(numbers, np.float64) for numbers in statistics)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        lines.append("obs_statistics holds numbers that are not finite, or a deviation of 0")
    return lines


def _source(demonstrations: Any, count: int, seed: int) -> Callable[[int, bool], Batch] | None:
    """Batch number n of either behaviour, as NumPy arrays."""
    if isinstance(demonstrations, Demonstrations):
        rows = jax.jit(
            lambda data, key, clean: demonstrations.rows(data, key, count, clean=clean),
            static_argnums=2,
        )

        def made(number: int, clean: bool) -> Batch:
            key = jax.random.fold_in(jax.random.key(seed), number)
            return jax.device_get(rows(demonstrations.data, key, clean)[0])

        return made
    if isinstance(demonstrations, HostDemonstrations):
        return lambda number, clean: demonstrations.host_rows(seed, number, count, clean=clean)
    return None


def _leaves(batch: Batch) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]


def _same(first: Batch, second: Batch, close: bool = False) -> bool:
    pairs = zip(_leaves(first), _leaves(second), strict=True)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if close else {"rtol": 0.0, "atol": 0.0}
    return all(
        a.shape == b.shape and np.allclose(a, b, equal_nan=True, **tolerance) for a, b in pairs
    )


def _repeats(make: Callable[[int, bool], Batch], batches: list[Batch], clean: bool) -> list[str]:
    lines = []
    if not _same(make(0, clean), batches[0]):
        lines.append(f"rows(clean={clean}) gave other rows for the same key; allowed: the same")
    rows = {tuple(leaf[row].tobytes() for leaf in _tokens(batches[0])) for row in _rows(batches[0])}
    # Where there is only one episode, all rows are the same.
    if len(rows) > 1 and all(_same(batches[0], other) for other in batches[1:]):
        lines.append(f"rows(clean={clean}) gave the same rows for {KEYS} keys; allowed: others")
    return lines


def _tokens(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(batch.obs), np.asarray(batch.action)


def _rows(batch: Batch) -> range:
    return range(len(_tokens(batch)[0]))


def _unjitted(
    demonstrations: Demonstrations, compiled: Batch, count: int, seed: int, clean: bool
) -> list[str]:
    key = jax.random.fold_in(jax.random.key(seed), 0)
    found, metrics = demonstrations.rows(demonstrations.data, key, count, clean=clean)
    lines = []
    if not _same(jax.device_get(found), compiled, close=True):
        lines.append(f"rows(clean={clean}) gave other rows without jit; allowed: the same")
    for name, value in metrics.items():
        if np.shape(value) != ():
            lines.append(
                f"rows(clean={clean}): metric {name} has shape {np.shape(value)}; allowed: a scalar"
            )
    return lines


def _shapes(
    batch: Batch,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    count: int,
    horizon: int | None,
) -> list[str]:
    length = horizon or (np.shape(batch.valid)[1] if np.ndim(batch.valid) > 1 else 1)
    token, obs, integer = (count, length), (count, length, *obs_spec.shape), np.int32
    expected = {
        "obs": (obs, obs_spec.dtype),
        "next_obs": (obs, obs_spec.dtype),
        "action": ((*token, *action_spec.shape), action_spec.dtype),
        **{name: (token, integer) for name in ("goal", "subgoal", "task")},
        **{name: (token, np.bool_) for name in ("reset", "valid")},
    }
    found = {name: getattr(batch, name) for name in expected}
    if batch.view is not None:
        wide = np.shape(batch.view.valid)[1] if np.ndim(batch.view.valid) > 1 else 1
        expected["view.obs"] = ((count, wide, *obs_spec.shape), obs_spec.dtype)
        expected["view.valid"] = ((count, wide), np.bool_)
        expected["view.token"] = (token, integer)
        found |= {f"view.{name}": getattr(batch.view, name) for name in ("obs", "valid", "token")}
    lines = []
    for name, (shape, dtype) in expected.items():
        has = np.asarray(found[name])
        if has.shape != shape or has.dtype != np.dtype(dtype):
            want = f"{np.dtype(dtype)} {list(shape)}"
            lines.append(f"{name} is {has.dtype} {list(has.shape)}; allowed is {want}")
    return lines


def _layout(batch: Batch, clean: bool) -> list[str]:
    """Trajectories in rows: where they begin, where padding is, and what follows what."""
    reset, valid = np.asarray(batch.reset), np.asarray(batch.valid)
    lines = []

    def report(wrong: Any, text: str) -> None:
        if wrong.any():
            row, *token = (int(i) for i in np.argwhere(wrong)[0])
            lines.append(f"row {row}{f', token {token[0]}' if token else ''}: {text}")

    report(reset & ~valid, "reset on padding; allowed: on valid tokens only")
    report(valid[:, 0] & ~reset[:, 0], "does not begin with a reset; allowed: always")
    after_gap = valid[:, 1:] & ~valid[:, :-1] & ~reset[:, 1:]
    report(after_gap, "a trajectory goes on after padding; allowed: a reset where one begins")
    if clean:
        report(~valid[:, 0], "begins with padding; allowed: padding on the right only")
        report(
            (reset & valid)[:, 1:].any(axis=1), "holds several trajectories; allowed if clean: one"
        )
        gap = (valid[:, 1:] & ~valid[:, :-1]).any(axis=1)
        report(gap, "has padding in between; allowed if clean: on the right only")
    elif not valid.any():
        lines.append("all tokens are padding")
    inside = valid[:, 1:] & valid[:, :-1] & ~reset[:, 1:]  # [R, L-1]: token t+1 continues t
    obs, following = np.asarray(batch.obs), np.asarray(batch.next_obs)
    # NaN, which is reported as such, equals itself here.
    same = np.isclose(obs[:, 1:], following[:, :-1], rtol=0.0, atol=0.0, equal_nan=True)
    same = same.reshape(*inside.shape, -1).all(axis=-1)
    report(inside & ~same, "next_obs is not the obs of the token after it")
    task = np.asarray(batch.task)
    report(inside & (task[:, 1:] != task[:, :-1]), "task changes within a trajectory")
    return lines


def _values(
    batch: Batch, obs_spec: ObservationSpec, action_spec: ActionSpec, num_goals: int | None
) -> list[str]:
    """Values of valid tokens."""
    valid = np.asarray(batch.valid)
    place = np.argwhere(valid)

    def at_valid(name: str) -> np.ndarray:
        return np.asarray(getattr(batch, name))[valid]

    found = {
        "obs": fault(at_valid("obs"), obs_spec),
        "next_obs": fault(at_valid("next_obs"), obs_spec),
        "action": fault(at_valid("action"), action_spec),
        "goal": label_fault(at_valid("goal"), num_goals),
        "subgoal": label_fault(at_valid("subgoal")),
        "task": label_fault(at_valid("task")),
    }
    return [
        f"row {place[wrong.row][0]}, token {place[wrong.row][1]}: {name}: {wrong.text}"
        for name, wrong in found.items()
        if wrong
    ]


__all__ = ["check_demonstrations", "check_folder"]
