"""Everything that can be wrong with a folder of demonstrations, and a picture of its lengths."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import LABELS
from internal_rl.demonstrations.folder import Folder, examine
from internal_rl.demonstrations.recorded import describe, misfits
from internal_rl.demonstrations.values import (
    Fault,
    extremes,
    fault,
    label_fault,
    not_finite,
    obs_statistics,
    pieces,
)

_BARS, _BAR_WIDTH = 10, 40


@dataclass(frozen=True)
class FolderReport:
    """What `check_folder` found; as text, the lines that `internal-rl data check` prints."""

    path: Path
    problems: tuple[str, ...]
    """One line each; none: nothing is wrong."""
    summary: tuple[str, ...]
    """What is in the folder; empty if it cannot be opened."""

    def __str__(self) -> str:
        verdict = f"{len(self.problems)} problems" if self.problems else "nothing is wrong"
        verdict = "1 problem" if len(self.problems) == 1 else verdict
        return "\n".join([*self.summary, f"{self.path}: {verdict}", *self.problems])


def check_folder(
    path: str | Path,
    obs_spec: ObservationSpec | None = None,
    action_spec: ActionSpec | None = None,
    num_goals: int = 0,
) -> FolderReport:
    """Look at every byte of a folder of demonstrations.

    Args:
        obs_spec, action_spec: the world's, if it shall fit one.
        num_goals: of the world; 0: any.
    """
    path = Path(path)
    folder, problems = examine(path, verify=True)
    if folder is None:
        return FolderReport(path, tuple(problems), ())
    problems = misfits(
        folder, obs_spec or folder.obs_spec, action_spec or folder.action_spec, num_goals
    )
    # What the manifest says of values that are wrong is no news.
    problems += _values(folder) or _facts(folder)
    return FolderReport(
        path, tuple(f"{path}: {line}" for line in problems), tuple(_summary(folder))
    )


def _values(folder: Folder) -> list[str]:
    """The first wrong value of every field."""
    lines = []
    for name, array in folder.arrays.items():
        if name == "starts":
            continue
        for part in pieces(array):
            wrong = _fault(folder, name, np.asarray(array[part]))
            if wrong:
                place = _place(folder, name, part.start + wrong.row)
                lines.append(f"{name}, {place}: {wrong.text}")
                break
    return lines


def _fault(folder: Folder, name: str, values: np.ndarray) -> Fault | None:
    if name == "obs":
        return fault(values, folder.obs_spec)
    if name == "action":
        return fault(values, folder.action_spec)
    return not_finite(values) if name == "reward" else label_fault(values)


def _place(folder: Folder, name: str, row: int) -> str:
    if name == "task":
        return f"episode {row}"
    starts = folder.arrays["starts"]
    first = starts + np.arange(len(starts)) if name == "obs" else starts
    episode = int(np.searchsorted(first, row, side="right")) - 1
    return f"episode {episode}, row {row - int(first[episode])}"


def _facts(folder: Folder) -> list[str]:
    """What the manifest says of the values, and they do not."""
    found: dict[str, Any] = {"action_range": [float(x) for x in extremes(folder.arrays["action"])]}
    for name, key in (("goal", "num_goals"), ("task", "num_tasks")):
        labels = folder.arrays.get(name)
        found[key] = 0 if labels is None else int(labels.max()) + 1
    lines = [
        f"the manifest says {key} is {folder.manifest[key]}, the files {value}"
        for key, value in found.items()
        if not np.array_equal(value, folder.manifest[key], equal_nan=True)
    ]
    expected = obs_statistics(folder.arrays["obs"], folder.obs_spec)
    if expected and folder.statistics:
        for name, want, has in zip(expected._fields, expected, folder.statistics, strict=True):
            close = np.isclose(has, want, rtol=1e-3, atol=1e-6, equal_nan=True)
            if not close.all():
                i = int(np.argmin(close))
                lines.append(
                    f"the manifest says the {name} of observation number {i} is {has[i]}, the files {want[i]}"
                )
    return lines


def _summary(folder: Folder) -> list[str]:
    lengths = folder.lengths
    size = sum(array.nbytes for array in folder.arrays.values())
    labels = [name for name in (*LABELS, "reward") if name in folder.arrays]
    return [
        f"{folder.episodes} episodes, {folder.manifest['steps']} steps, {size / 1e6:.1f} MB",
        f"observation: {describe(folder.obs_spec)}",
        f"action: {describe(folder.action_spec)}" + _bounds(folder),
        f"labels: {', '.join(labels) or 'none'}"
        + (f" ({folder.manifest['num_goals']} goals)" if "goal" in labels else ""),
        f"length: {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}",
        *histogram(lengths),
    ]


def _bounds(folder: Folder) -> str:
    if not folder.action_spec.dim:
        return ""
    least, most = folder.manifest["action_range"]
    return f" from {least:.4g} to {most:.4g}"


def histogram(lengths: np.ndarray) -> list[str]:
    """Lengths of episodes as bars of text, in at most ten equal ranges."""
    least, most = int(lengths.min()), int(lengths.max())
    width = -(-(most - least + 1) // _BARS)
    edges = np.arange(least, most + width + 1, width)
    counts, _ = np.histogram(lengths, bins=edges)
    digits = len(str(edges[-1] - 1))
    lines = []
    for low, high, count in zip(edges[:-1], edges[1:] - 1, counts, strict=True):
        name = f"{low:>{digits}}" if low == high else f"{low:>{digits}}-{high:<{digits}}"
        bar = "█" * round(_BAR_WIDTH * count / counts.max())
        lines.append(f"  {name}  {bar} {count}")
    return lines
