"""Metrics to their sinks: JSON lines always, TensorBoard by default, Weights & Biases when asked
for.

`metrics.jsonl` holds only numbers that follow from config and seed, so two runs of one config have
the same file. Anything measured with a clock goes into `timing.jsonl`.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir

Numbers = Mapping[str, Any]


class Logger:
    """Writes one step's numbers to every sink. Close it, or use it in a `with` statement.

    Args:
        run: the run directory.
        tensorboard: write events into `tensorboard/`; with seeds, one curve per seed and one for
            their mean. Numbers that are not finite are left out (decibels of an estimator without
            variance, say), because each would print a warning; they are null in `metrics.jsonl`.
        wandb: also log to this Weights & Biases project; needs the `wandb` extra.
        resume_step: hide TensorBoard events of later steps, which an interrupted run may have left.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        tensorboard: bool = True,
        wandb: str | None = None,
        resume_step: int | None = None,
    ):
        self._run = run
        # First what may fail: nothing is open yet.
        self._wandb = _open_wandb(run, wandb) if wandb else None
        self._files = {
            file: file.open("a", encoding="utf-8") for file in (run.metrics_file, run.timing_file)
        }
        self._tensorboard = _open_tensorboard(run, resume_step) if tensorboard else None

    def metrics(self, step: int, metrics: Numbers) -> None:
        """Log reproducible metrics: a scalar each, or an array [S] with one entry per seed."""
        self._append(self._run.metrics_file, step, metrics)
        flat = _flatten(metrics)
        if self._tensorboard is not None:
            for name, value in flat.items():
                if math.isfinite(value):
                    self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(flat, step=step)

    def timing(self, step: int, quantities: Numbers) -> None:
        """Log wall-clock quantities (seconds, steps per second)."""
        self._append(self._run.timing_file, step, quantities)

    def close(self) -> None:
        """Flush and close every sink."""
        for file in self._files.values():
            file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, path: Path, step: int, numbers: Numbers) -> None:
        line = json.dumps({"step": step, **{k: to_json(v) for k, v in numbers.items()}})
        # Flushed line by line: after kill -9 at most the last line is cut, and `drop_after` removes
        # it.
        self._files[path].write(line + "\n")
        self._files[path].flush()


def to_json(value: Any) -> Any:
    """A number, or a list with one number per seed. float32 keeps its shortest exact form; NaN and
    inf become null."""
    array = np.asarray(value)
    if array.ndim:
        return [to_json(item) for item in array]
    if not np.issubdtype(array.dtype, np.floating):
        return array.item()
    number = float(np.format_float_scientific(array.dtype.type(array)))
    return number if math.isfinite(number) else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every complete line of a .jsonl file; a last line that was cut off is left out."""
    return [_parse(path, line) for line in _complete_lines(path)]


def read_metrics(run: RunDir) -> dict[str, np.ndarray]:
    """The metrics of a run as columns: each [lines] or [lines, S], NaN where a line lacks the
    metric."""
    lines = read_lines(run.metrics_file)
    names = list(dict.fromkeys(name for line in lines for name in line))
    return {name: _column([line.get(name) for line in lines]) for name in names}


def drop_after(path: Path, step: int) -> None:
    """Remove the lines of later steps than `step`, and a cut-off last line, atomically."""
    lines = _complete_lines(path)
    kept = [line + "\n" for line in lines if _parse(path, line)["step"] <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _complete_lines(path: Path) -> list[str]:
    # What follows the last newline is empty, or a line that was cut off.
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def _parse(path: Path, line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _column(values: list[Any]) -> np.ndarray:
    width = max((len(v) for v in values if isinstance(v, list)), default=0)
    blank: Any = [math.nan] * width if width else math.nan
    rows = [blank if v is None else v for v in values]
    return np.array(
        [[math.nan if x is None else x for x in row] if width else row for row in rows], dtype=float
    )


def _flatten(metrics: Numbers) -> dict[str, float]:
    flat = {}
    for name, value in metrics.items():
        array = np.asarray(value, dtype=float)
        flat[name] = float(array.mean())
        if array.ndim:
            flat |= {f"{name}/seed_{i}": float(item) for i, item in enumerate(array)}
    return flat


def _open_tensorboard(run: RunDir, resume_step: int | None) -> Any:
    # tensorboardX is slow to import, and only training needs it.
    from tensorboardX import SummaryWriter

    purge = None if resume_step is None else resume_step + 1
    return SummaryWriter(logdir=str(run.tensorboard_dir), purge_step=purge)


def _open_wandb(run: RunDir, project: str) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "wandb is not installed; allowed: pip install 'internal-rl[wandb]'"
        ) from None
    info = run.info
    # The same run resumed continues its curve; a new run of the same name does not.
    identity = hashlib.sha256(f"{run.path.resolve()} {info['created']}".encode()).hexdigest()
    return wandb.init(
        project=project,
        name=run.path.name,
        id=identity[:16],
        group=info["stage"],
        resume="allow",
        config=json.loads((run.path / "config.json").read_text(encoding="utf-8")),
    )
