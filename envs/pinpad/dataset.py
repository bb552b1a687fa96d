"""Expert trajectories on disk: one .npy file per field, read through memory maps, and a manifest.

manifest.json holds the schema version, the settings that made the data, and the shape, dtype, size
and SHA-256 of every file, so that a folder can be checked against itself and against a config.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.pinpad import expert
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.tasks import encode_tasks

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

DTYPES = {
    "objects": "int16",
    "walls": "int16",
    "agent": "int16",
    "action": "int8",
    "goal": "int8",
    "subgoal": "int16",
    "length": "int32",
    "task": "int32",
}
"""Dtype of each field on disk; batches come back as int32."""


@dataclass(frozen=True)
class Dataset:
    """An open dataset: read-only memory maps with the trajectory axis first."""

    path: Path
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return self.manifest["count"]

    def batch(self, indices: np.ndarray) -> expert.Trajectories:
        """Trajectories of the given indices, on the default device."""
        return expert.Trajectories(
            **{k: jnp.asarray(array[indices], jnp.int32) for k, array in self.arrays.items()}
        )


def write_dataset(
    path: str | Path,
    env: GridPinpad,
    tasks: Sequence[str],
    count: int,
    horizon: int,
    seed: int,
    epsilon: float = 0.0,
    tie_breaking: expert.TieBreaking = "uniform",
    chunk: int = 1024,
) -> Dataset:
    """Generate `count` trajectories, `chunk` at a time, into a new folder and open it.

    The folder appears under its name only when it is complete.

    Raises:
        FileExistsError: `path` exists; nothing is ever overwritten.
        ValueError: count or chunk below 1, or see `expert.generate`.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another folder or remove it")
    for name, value in (("count", count), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name}={value}: allowed is 1 or more")
    encoded = encode_tasks(tasks, env.num_objects)
    expert.check_solvable(encoded, horizon)
    generate = jax.jit(
        partial(
            expert.generate,
            env=env,
            tasks=encoded,
            n=min(chunk, count),
            horizon=horizon,
            epsilon=epsilon,
            tie_breaking=tie_breaking,
        )
    )
    settings = {
        "env": _env_settings(env),
        "tasks": list(tasks),
        "count": count,
        "horizon": horizon,
        "seed": seed,
        "epsilon": epsilon,
        "tie_breaking": tie_breaking,
        "chunk": chunk,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_arrays(folder, generate, jax.random.key(seed), count)
        files = {name: _describe(folder / f"{name}.npy") for name in DTYPES}
        manifest = {"schema_version": SCHEMA_VERSION, **settings, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        folder.chmod(0o755)  # mkdtemp makes it private
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return open_dataset(path)


def _write_arrays(folder: Path, generate: Any, key: Any, count: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    start = 0
    while start < count:
        trajectories, stats = generate(jax.random.fold_in(key, start))
        if float(stats["solvable_fraction"]) == 0.0:
            raise ValueError("no uniform layout was solvable; use fewer walls or a longer horizon")
        stop = min(count, start + trajectories.length.shape[0])
        for name, dtype in DTYPES.items():
            values = np.asarray(getattr(trajectories, name))
            if not arrays.keys() >= {name}:
                arrays[name] = _create(folder / f"{name}.npy", dtype, (count, *values.shape[1:]))
            arrays[name][start:stop] = values[: stop - start]
        start = stop
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()


def _create(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if 0 in shape:  # an empty file cannot be mapped (a grid without walls)
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _describe(path: Path) -> dict[str, Any]:
    array = _load(path)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)  # empty arrays cannot be mapped


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _env_settings(env: GridPinpad) -> dict[str, int]:
    # The observation is computed from the cells, so it is not a property of the data.
    return {k: getattr(env, k) for k in ("grid_size", "num_objects", "num_walls")}


def open_dataset(
    path: str | Path,
    env: GridPinpad | None = None,
    tasks: Sequence[str] | None = None,
    horizon: int | None = None,
    verify: bool = True,
) -> Dataset:
    """Open a folder made by `write_dataset`.

    Args:
        env, tasks, horizon: settings that the data must have been made with; None: any.
        verify: also compare the SHA-256 of every file (reads all of it once).

    Raises:
        FileNotFoundError: no such folder, or no manifest in it.
        ValueError: unreadable manifest, another schema version, a file that is missing or was
            changed, or settings other than the expected ones.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    expected = {
        "env": env and _env_settings(env),
        "tasks": None if tasks is None else list(tasks),
        "horizon": horizon,
    }
    for name, value in expected.items():
        if value is not None and manifest[name] != value:
            raise ValueError(
                f"{path}: the dataset was made with {name}={manifest[name]}, expected {value}"
            )
    arrays = {}
    for name, entry in manifest["files"].items():
        arrays[name] = _checked_array(path / f"{name}.npy", entry, verify)
    return Dataset(path=path, manifest=manifest, arrays=arrays)


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; {path} is not a dataset folder")
    try:
        manifest = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{file}: schema_version={version}, this code reads {SCHEMA_VERSION}")
    missing = {"env", "tasks", "count", "horizon", "files"} - manifest.keys()
    missing |= DTYPES.keys() - manifest.get("files", {}).keys()
    if missing:
        raise ValueError(f"{file} lacks {', '.join(sorted(missing))}")
    return manifest


def _checked_array(path: Path, entry: dict[str, Any], verify: bool) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path} is missing; the dataset is incomplete")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{path} is corrupt: {size} bytes, the manifest says {entry['bytes']}")
    if verify and _sha256(path) != entry["sha256"]:
        raise ValueError(f"{path} is corrupt: its SHA-256 differs from the manifest's")
    array = _load(path)
    found = (str(array.dtype), list(array.shape))
    if found != (entry["dtype"], entry["shape"]):
        raise ValueError(
            f"{path}: dtype and shape {found}, the manifest says {entry['dtype']}, {entry['shape']}"
        )
    return array


def batches(
    dataset: Dataset, batch_size: int, seed: int, start: int = 0
) -> Iterator[expert.Trajectories]:
    """Endless random batches, drawn with replacement.

    Batch i depends on the seed and i only, so a run resumed at `start=i` reads what it would have
    read without the interruption.

    Raises:
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: allowed is 1 or more")
    return _batches(dataset, batch_size, seed, start)


def _batches(
    dataset: Dataset, batch_size: int, seed: int, step: int
) -> Iterator[expert.Trajectories]:
    while True:
        indices = np.random.default_rng([seed, step]).integers(len(dataset), size=batch_size)
        yield dataset.batch(np.sort(indices))  # sorted: reads move forward through the file
        step += 1
