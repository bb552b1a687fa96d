"""Recorded demonstrations on disk: flat .npy files with offsets, read through memory maps, and a manifest.

Episode i takes T_i actions and sees T_i + 1 observations; the last one is what its last action led to. Episodes lie one
after the other, so two numbers find everything of episode i: `starts[i]` in the files of actions, and `starts[i] + i` in
that of observations, since every episode before it has one row more there. With T = 3, 2, ...:

    starts.npy   int64 [E+1]    0           3        5 ...
                                |           |        |
    action.npy   [N, *A]        a0 a1 a2    b0 b1    c0 ...            goal, subgoal, reward likewise [N]
    obs.npy      [N+E, *O]      o0 o1 o2 o3 p0 p1 p2 q0 ...
                                |           |        |
                starts[i] + i   0           4        7 ...
    task.npy     int32 [E]      7           2        5 ...             one per episode

    file          dtype
    obs           float32; int32 for tokens; uint8 for one-hot observations
    action        float32; int32 for alternatives
    goal          int32, true active sub-goal at each step, -1 unknown              optional
    subgoal       int32, its index in the task, -1 unknown                          optional
    task          int32, which task the episode follows, -1 unknown                 optional
    reward        float32                                                           optional

Observations are one array, all that an `ObservationSpec` knows. manifest.json holds the schema version, counts, what one
observation and one action are, the mean and standard deviation of every observation number, `made_by` (whatever the
writer has to say), and shape, dtype, size and SHA-256 of every file, so that a folder can be checked against itself and
against a world. `writer.Writer` makes such a folder, `folder.open_folder` reads it.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.values import Statistics, extremes, storage_dtype

SCHEMA = "internal-rl-demonstrations"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LABELS = ("goal", "subgoal", "task")
OPTIONAL = (*LABELS, "reward")
FIELDS = ("obs", "action", *OPTIONAL, "starts")


def field_dtype(name: str, obs_spec: ObservationSpec, action_spec: ActionSpec) -> np.dtype:
    """Dtype of a field on disk."""
    if name == "obs":
        return storage_dtype(obs_spec)
    if name == "action":
        return storage_dtype(action_spec)
    return np.dtype({"starts": np.int64, "reward": np.float32}.get(name, np.int32))


def field_shape(
    name: str, obs_spec: ObservationSpec, action_spec: ActionSpec, episodes: int, steps: int
) -> tuple[int, ...]:
    """Shape of a field on disk."""
    rows = {"obs": steps + episodes, "starts": episodes + 1, "task": episodes}.get(name, steps)
    return (rows, *{"obs": obs_spec.shape, "action": action_spec.shape}.get(name, ()))


def manifest_of(
    folder: Path,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    statistics: Statistics | None,
    made_by: dict[str, Any],
) -> dict[str, Any]:
    """The manifest of finished files; reads all of them once."""
    arrays = {
        name: load_array(folder / f"{name}.npy")
        for name in FIELDS
        if (folder / f"{name}.npy").is_file()
    }
    lengths = np.diff(arrays["starts"])
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "episodes": len(lengths),
        "steps": int(arrays["starts"][-1]),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "obs_spec": dataclasses.asdict(obs_spec),
        "action_spec": dataclasses.asdict(action_spec),
        "action_range": [float(x) for x in extremes(arrays["action"])],
        "obs_statistics": statistics and statistics._asdict(),
        "num_goals": _count(arrays.get("goal")),
        "num_tasks": _count(arrays.get("task")),
        "made_by": made_by,
        "files": {
            name: {
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "bytes": (folder / f"{name}.npy").stat().st_size,
                "sha256": sha256(folder / f"{name}.npy"),
            }
            for name, array in arrays.items()
        },
    }


def _count(labels: np.ndarray | None) -> int:
    return 0 if labels is None else int(labels.max()) + 1


def load_array(path: Path) -> np.ndarray:
    """Memory map of a .npy file.

    Raises:
        ValueError: it is none, or holds Python objects.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
