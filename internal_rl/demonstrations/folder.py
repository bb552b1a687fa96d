"""Open a folder of demonstrations (see `disk` for what is in it), or say what is wrong with its manifest and files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import (
    FIELDS,
    MANIFEST,
    SCHEMA,
    SCHEMA_VERSION,
    field_dtype,
    field_shape,
    load_array,
    sha256,
)
from internal_rl.demonstrations.values import Statistics
from internal_rl.errors import UserError

_KEYS: dict[str, type] = {
    "episodes": int,
    "steps": int,
    "obs_spec": dict,
    "action_spec": dict,
    "action_range": list,
    "num_goals": int,
    "num_tasks": int,
    "made_by": dict,
    "files": dict,
}
_FILE_KEYS: dict[str, type] = {"dtype": str, "shape": list, "bytes": int, "sha256": str}


@dataclass(frozen=True, eq=False)
class Folder:
    """An open folder: read-only memory maps by field, those of `FIELDS` that it has."""

    path: Path
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]
    obs_spec: ObservationSpec
    action_spec: ActionSpec
    digest: str
    """SHA-256 of the manifest, which holds those of all files: two folders with one digest hold the same data."""

    @property
    def episodes(self) -> int:
        """E."""
        return self.manifest["episodes"]

    @property
    def lengths(self) -> np.ndarray:
        """T of every episode, int64 [E]."""
        return np.diff(self.arrays["starts"])

    @property
    def statistics(self) -> Statistics | None:
        """Mean and standard deviation per observation number; None for tokens."""
        found = self.manifest["obs_statistics"]
        return found and Statistics(tuple(found["mean"]), tuple(found["std"]))


def open_folder(path: str | Path, verify: bool = True) -> Folder:
    """Open a folder of demonstrations.

    Args:
        verify: also compare the SHA-256 of every file, which reads all of it once.

    Raises:
        UserError: there is none, or something about its manifest and files is wrong (not: about values inside; see
            `check_folder`).
    """
    folder, problems = examine(Path(path), verify)
    if folder is None:
        raise UserError(problems[0])
    return folder


def examine(path: Path, verify: bool) -> tuple[Folder | None, list[str]]:
    """The open folder if nothing is wrong with its manifest and files, and one line for everything that is."""
    manifest, problems = _read_manifest(path)
    if manifest is None:
        return None, problems
    try:
        obs_spec, action_spec = _specs(manifest)
    except (ValueError, TypeError) as error:
        return None, [f"{path / MANIFEST}: {error}"]
    arrays: dict[str, np.ndarray] = {}
    for name in FIELDS:
        if name in manifest["files"]:
            dtype = field_dtype(name, obs_spec, action_spec)
            array = _checked_array(
                path / f"{name}.npy", manifest["files"][name], dtype, verify, problems
            )
            if array is not None:
                arrays[name] = array
        elif (path / f"{name}.npy").is_file():
            problems.append(f"{path / MANIFEST} does not list {name}.npy, which lies beside it")
    if not problems:
        problems = [f"{path}: {line}" for line in _layout(manifest, arrays, obs_spec, action_spec)]
    if problems:
        return None, problems
    digest = sha256(path / MANIFEST)
    return Folder(path, manifest, arrays, obs_spec, action_spec, digest), []


def _read_manifest(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    file = path / MANIFEST
    if not path.is_dir():
        return None, [
            f"{path} is no folder; allowed: one made by internal-rl data record or import"
        ]
    if not file.is_file():
        holds = "which is empty" if not any(path.iterdir()) else "which has no manifest.json"
        return None, [
            f"no demonstrations in {path}, {holds}; allowed: a folder made by internal-rl data record or import"
        ]
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return None, [f"{file} is not valid JSON: {error}"]
    known = manifest if isinstance(manifest, dict) else {}
    if known.get("schema") != SCHEMA:
        return None, [f"{file}: schema is {known.get('schema')!r}; allowed: '{SCHEMA}'"]
    if known.get("schema_version") != SCHEMA_VERSION:
        return None, [
            f"{file}: schema_version is {known.get('schema_version')!r}; this version reads {SCHEMA_VERSION}"
        ]
    problems = [f"{file}: {line}" for line in _wrong_keys(known, _KEYS)]
    if "obs_statistics" not in known:
        problems.append(f"{file} lacks obs_statistics")
    if not problems:
        for name in ("obs", "action", "starts"):
            if name not in known["files"]:
                problems.append(f"{file} lists no file of {name}")
        for name, entry in known["files"].items():
            if name not in FIELDS:
                problems.append(f"{file}: files has '{name}'; allowed: {', '.join(FIELDS)}")
            elif not isinstance(entry, dict):
                problems.append(f"{file}: files.{name} is {entry!r}; allowed: an object")
            else:
                problems += [f"{file}: files.{name}: {x}" for x in _wrong_keys(entry, _FILE_KEYS)]
    return (None, problems) if problems else (known, [])


def _wrong_keys(found: dict[str, Any], expected: dict[str, type]) -> list[str]:
    lines = []
    for key, kind in expected.items():
        if key not in found:
            lines.append(f"{key} is missing")
        elif not isinstance(found[key], kind) or isinstance(found[key], bool):
            lines.append(f"{key} is {found[key]!r}; allowed: {kind.__name__}")
    return lines


def _specs(manifest: dict[str, Any]) -> tuple[ObservationSpec, ActionSpec]:
    obs = dict(manifest["obs_spec"])
    obs["factor_sizes"] = tuple(obs.get("factor_sizes", ()))
    obs_spec, action_spec = ObservationSpec(**obs), ActionSpec(**manifest["action_spec"])
    if np.shape(manifest["action_range"]) != (2,):
        raise ValueError(f"action_range is {manifest['action_range']!r}; allowed: two numbers")
    found = manifest["obs_statistics"]
    if obs_spec.num_tokens:
        return obs_spec, action_spec
    if not isinstance(found, dict) or found.keys() != {"mean", "std"}:
        raise ValueError(f"obs_statistics is {found!r}; allowed: mean and std, {obs_spec.dim} each")
    for name, numbers in found.items():
        if np.shape(numbers) != obs_spec.shape:
            raise ValueError(
                f"obs_statistics.{name} has shape {np.shape(numbers)}; allowed: {obs_spec.shape}"
            )
    return obs_spec, action_spec


def _checked_array(
    path: Path, entry: dict[str, Any], dtype: np.dtype, verify: bool, problems: list[str]
) -> np.ndarray | None:
    if not path.is_file():
        problems.append(f"{path} is missing; the manifest lists it")
        return None
    size = path.stat().st_size
    if size != entry["bytes"]:
        problems.append(f"{path} is damaged: {size} bytes, the manifest says {entry['bytes']}")
        return None
    if verify and sha256(path) != entry["sha256"]:
        problems.append(f"{path} is damaged: its SHA-256 differs from the manifest's")
    try:
        array = load_array(path)
    except ValueError as error:
        problems.append(f"{path} is no .npy file: {error}")
        return None
    if str(array.dtype) != entry["dtype"] or list(array.shape) != entry["shape"]:
        problems.append(
            f"{path} holds {array.dtype} {list(array.shape)}, the manifest says {entry['dtype']} {entry['shape']}"
        )
    if array.dtype != dtype:
        problems.append(f"{path} has dtype {array.dtype}; allowed is {dtype}")
    return array


def _layout(
    manifest: dict[str, Any],
    arrays: dict[str, np.ndarray],
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
) -> list[str]:
    """What is wrong with the offsets and the numbers of rows."""
    starts = arrays["starts"]
    if starts.ndim != 1 or len(starts) < 2:
        return [f"starts.npy has shape {starts.shape}; allowed is (E + 1,) with E ≥ 1 episodes"]
    lines = []
    lengths = np.diff(starts)
    if starts[0] != 0:
        lines.append(f"starts[0] is {starts[0]}; allowed is 0")
    if (lengths < 0).any():
        i = int(np.argmax(lengths < 0))
        lines.append(f"starts[{i + 1}] is {starts[i + 1]}, below starts[{i}] = {starts[i]}")
    elif (lengths == 0).any():
        lines.append(f"episode {int(np.argmin(lengths))} is empty; allowed are 1 action or more")
    episodes, steps = len(lengths), int(starts[-1])
    for name, array in arrays.items():
        expected = field_shape(name, obs_spec, action_spec, episodes, steps)
        if array.shape != expected:
            why = " (one more per episode than actions)" if name == "obs" else ""
            lines.append(f"{name}.npy has shape {array.shape}; allowed is {expected}{why}")
    for name, count in (("episodes", episodes), ("steps", steps)):
        if manifest[name] != count:
            lines.append(f"the manifest says {manifest[name]} {name}, starts.npy {count}")
    return lines
