"""LeRobot data sets of version 3, read through pyarrow alone.

    meta/info.json                  version, features (dtype, shape), numbers of episodes and frames
    meta/episodes/**/*.parquet      one row per episode: episode_index, length, ...
    data/**/*.parquet               one row per frame: the features, episode_index, frame_index, task_index

An episode of T frames has T actions, and nothing tells what the last one led to. It is dropped: T frames become T
observations and T - 1 actions. Episodes of one frame, which have none, are left out, and counted in the manifest.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.importers.common import bounded, clipped, extra, names
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError

_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
_INDICES = ("episode_index", "frame_index")


def import_lerobot(
    source: str | Path,
    target: str | Path,
    *,
    obs: str | Iterable[str] = "observation.state",
    action: str = "action",
    reward: str | None = None,
    low: float | None = None,
    high: float | None = None,
    num_actions: int = 0,
    clip: bool = False,
) -> Path:
    """Write the episodes of a LeRobot folder into the folder `target`; `task_index` becomes the task of an episode.

    Args:
        obs: feature that is the observation; several, with commas between, are concatenated.
        action: feature that is the action.
        reward: feature that is the reward, such as `next.reward`; None: none is written.
        low, high: bounds of the actions; None: the smallest and largest in the data.
        num_actions: above 0: actions are one of so many alternatives rather than real numbers.
        clip: clip actions to the bounds.

    Raises:
        UserError: no such folder, another version, a feature that it lacks or that is no vector of numbers, files that
            contradict each other, or an episode does not fit.
    """
    extra("pyarrow")
    source, parts = Path(source), names(obs)
    info = _info(source)
    sizes = {name: _size(source, info, name) for name in (*parts, action)}
    if reward is not None:
        sizes[reward] = _size(source, info, reward)
    if num_actions:
        spec = ActionSpec(num_actions=num_actions)
    else:
        least, most = _range(source, action)
        spec = bounded(sizes[action], low, high, least, most)
    lengths = _lengths(source)
    made_by = {
        "by": "import_lerobot",
        "source": source.name,
        "codebase_version": info["codebase_version"],
        "obs": list(parts),
        "action": action,
        "fps": info.get("fps"),
        "episodes_of_one_frame_left_out": sum(length == 1 for length in lengths.values()),
    }
    obs_spec = ObservationSpec(dim=sum(sizes[name] for name in parts))
    with Writer(target, obs_spec, spec, made_by) as writer:
        seen = set()
        for number, frames in _episodes(source, sizes):
            count = len(frames["frame_index"])
            seen.add(number)
            _check_frames(source, number, frames["frame_index"], lengths.get(number))
            if count == 1:
                continue
            taken = frames[action][:-1]
            task = frames.get("task_index")
            writer.append(
                Episode(
                    obs=np.concatenate([frames[name] for name in parts], axis=1),
                    action=taken[:, 0] if num_actions else clipped(taken, spec, clip),
                    task=None if task is None else int(task[0]),
                    reward=None if reward is None else frames[reward][:-1, 0],
                )
            )
        if seen != lengths.keys():
            missing = min(lengths.keys() - seen)
            raise UserError(f"{source}: episode {missing} of meta/episodes is not in data")
    return writer.path


def _info(source: Path) -> dict[str, Any]:
    file = source / "meta" / "info.json"
    if not file.is_file():
        raise UserError(f"no {file}; allowed: a LeRobot folder of version 3")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}") from None
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise UserError(
            f"{file}: codebase_version is {version}; allowed: v3.0 (LeRobot converts older ones)"
        )
    return info


def _size(source: Path, info: dict[str, Any], name: str) -> int:
    features = info.get("features", {})
    vectors = [
        key
        for key, feature in features.items()
        if feature["dtype"] in _NUMBERS and len(feature["shape"]) == 1
    ]
    if name not in features:
        raise UserError(f"{source} has no feature '{name}'; allowed: {', '.join(vectors)}")
    if name not in vectors:
        feature = features[name]
        raise UserError(
            f"feature '{name}' is {feature['dtype']} of shape {tuple(feature['shape'])}; allowed are vectors of numbers: "
            + ", ".join(vectors)
        )
    return int(features[name]["shape"][0])


def _files(source: Path, folder: str) -> list[Path]:
    files = sorted((source / folder).rglob("*.parquet"))
    if not files:
        raise UserError(
            f"{source / folder} has no .parquet files; allowed: a LeRobot folder of version 3"
        )
    return files


def _tables(source: Path, folder: str, columns: Iterable[str]) -> Iterator[Any]:
    """Tables of the columns, as far as a file has them, one row group at a time."""
    parquet = extra("pyarrow.parquet")
    for path in _files(source, folder):
        with parquet.ParquetFile(path) as file:
            has = set(file.schema_arrow.names)
            missing = [name for name in columns if name not in has and name != "task_index"]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}")
            chosen = [name for name in columns if name in has]
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=chosen)


def _lengths(source: Path) -> dict[int, int]:
    """Frames of every episode."""
    lengths: dict[int, int] = {}
    for table in _tables(source, "meta/episodes", ("episode_index", "length")):
        columns = table.to_pydict()
        lengths |= dict(zip(columns["episode_index"], columns["length"], strict=True))
    return lengths


def _column(table: Any, name: str) -> np.ndarray:
    """[frames, size], of a column of lists or of single numbers; [frames] for indices."""
    column = table.column(name).combine_chunks()
    if name in (*_INDICES, "task_index"):
        return column.to_numpy(zero_copy_only=False)
    while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)


def _range(source: Path, action: str) -> tuple[float, float]:
    least, most = np.inf, -np.inf
    for table in _tables(source, "data", (action,)):
        values = _column(table, action)
        least, most = min(least, float(values.min())), max(most, float(values.max()))
    return least, most


def _episodes(source: Path, sizes: dict[str, int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Number and frames of each episode, in the order of the files; one may go on in the next row group or file."""
    number, held = -1, []
    for table in _tables(source, "data", (*sizes, *_INDICES, "task_index")):
        columns = {name: _column(table, name) for name in table.column_names}
        for name, size in sizes.items():
            if columns[name].shape[1] != size:
                raise UserError(
                    f"{source}: '{name}' has {columns[name].shape[1]} numbers per frame, meta/info.json says {size}"
                )
        index = columns["episode_index"]
        cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
        for begin, end in itertools.pairwise(cuts):
            part = {name: column[begin:end] for name, column in columns.items()}
            if held and int(index[begin]) != number:
                yield number, _joined(held)
                held = []
            number = int(index[begin])
            held.append(part)
    if held:
        yield number, _joined(held)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_frames(source: Path, number: int, frames: np.ndarray, length: int | None) -> None:
    if not np.array_equal(frames, np.arange(len(frames))):
        raise UserError(f"{source}: frame_index of episode {number} does not count from 0")
    if length != len(frames):
        raise UserError(
            f"{source}: episode {number} has {len(frames)} frames in data and {length} in meta/episodes"
        )
