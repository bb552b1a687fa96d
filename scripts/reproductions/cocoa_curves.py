"""Curves of COCOA's training runs, one CSV per figure, so that published curves outlive their runs.

A figure draws what has a run, takes from such a file what has none, and trains the rest.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from internal_rl.errors import UserError
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir

_KEY = ("preset", "model", "method", "metric", "commit", "dirty", "step")


@dataclass(frozen=True)
class Curve:
    """A metric of all seeds of one run.

    Attributes:
        steps: int[points], training batches.
        values: float[points, S].
        git: commit of the run, and whether its tree was dirty.
    """

    steps: np.ndarray
    values: np.ndarray
    git: dict[str, Any]


def curve_of(run: RunDir, metric: str) -> Curve:
    """The curve of `metric` in a run's log."""
    columns = read_metrics(run)
    values = columns[metric]
    # A run of one seed logs numbers, not lists.
    return Curve(columns["step"], values.reshape(len(values), -1), run.info["git"])


def write_curves(
    path: Path, preset: str, metric: str, sides: Mapping[str, Mapping[str, Curve]]
) -> None:
    """One row per method and logged step, one column per seed; floats are written in full."""
    seeds = max(curve.values.shape[1] for side in sides.values() for curve in side.values())
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*_KEY, *(f"seed_{i}" for i in range(seeds))])
        for model, methods in sides.items():
            for method, curve in methods.items():
                origin = [preset, model, method, metric, curve.git["commit"], curve.git["dirty"]]
                for step, values in zip(curve.steps, curve.values, strict=True):
                    rows.writerow([*origin, int(step), *values.tolist()])


def read_curves(path: Path, preset: str, metric: str, seeds: int) -> dict[tuple[str, str], Curve]:
    """What `write_curves` wrote, by model and method.

    Raises:
        UserError: `path` is no such file, or holds curves of another preset, metric or number of seeds.
    """
    if not path.is_file():
        raise UserError(f"--published {path}: there is no such file; allowed: a figure's CSV")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if tuple(header[: len(_KEY)]) != _KEY or len(header) - len(_KEY) != seeds:
        raise UserError(
            f"--published {path} has columns {', '.join(header) or 'none'}; "
            f"allowed: {', '.join(_KEY)} and {seeds} of seeds (--seeds)"
        )
    found: dict[tuple[str, str], list[list[str]]] = {}
    for row in rows:
        if len(row) != len(header) or (row[0], row[3]) != (preset, metric):
            raise UserError(
                f"--published {path} has the line {','.join(row)!r}; allowed: {len(header)} columns "
                f"of preset {preset} and metric {metric}"
            )
        found.setdefault((row[1], row[2]), []).append(row)
    return {name: _curve(path, rows) for name, rows in found.items()}


def _curve(path: Path, rows: list[list[str]]) -> Curve:
    try:
        numbers = np.array([row[len(_KEY) - 1 :] for row in rows], dtype=float)
    except ValueError as error:
        raise UserError(f"--published {path} is damaged: {error}") from None
    commit, dirty = rows[0][4:6]  # empty where a run did not come from a repository
    git = {"commit": commit or None, "dirty": dirty == "True" if dirty else None}
    return Curve(numbers[:, 0], numbers[:, 1:], git)
