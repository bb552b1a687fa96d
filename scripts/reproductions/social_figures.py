"""What the figures of the social papers share: runs that are continued, curves with quartiles, JSON beside the PNG."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from configs import social as presets
from internal_rl.errors import UserError
from internal_rl.runs.cache import enable_compilation_cache
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.loop import timing_totals
from internal_rl.runs.run_dir import RunDir, git_state, is_run, write_json
from internal_rl.runs.statistics import median_and_quartiles
from internal_rl.social.build import validate_social
from internal_rl.social.config import AnalyticConfig, PredictiveConfig, SocialConfig
from internal_rl.social.evaluate import summary
from internal_rl.social.pipeline import run_analytic, run_predictive, run_social

RUNS = Path("runs/coala")
LABELS = {
    "coala": "COALA-PG",
    "batch_unaware": "batch-unaware",
    "m_fos": "M-FOS",
    "lola_dice": "LOLA-DiCE",
}
"""Estimators as a reader of the papers calls them; others go by their own name."""
ESTIMATORS = ("coala", "batch_unaware", "m_fos")
BAND = "line: median over seeds; band: quartiles; thin: single seeds"


def analytic_run(name: str, seeds: int, runs: Path) -> RunDir:
    """Run of an analytical preset."""
    return trained(presets.get(name, AnalyticConfig), runs / name, seeds)


def sampled_configs(name: str, estimators: Sequence[str]) -> dict[str, SocialConfig]:
    """A sampled preset with each of the estimators, and with what the paper sets for that method.

    Raises:
        UserError: an estimator that is unknown or does not fit; before anything is trained.
    """
    preset = presets.get(name, SocialConfig)
    found = {estimator: presets.with_estimator(preset, estimator) for estimator in estimators}
    for config in found.values():
        validate_social(config)
    return found


def run_path(runs: Path, config: SocialConfig) -> Path:
    """Where the figures keep the run of a sampled preset; an estimator in a file is named without its folders."""
    estimator = Path(config.pool.estimator).name.replace(":", "-")
    kind = "" if config.pool.p_naive else "-without-naive"
    return runs / f"{config.name}-{estimator}{kind}"


def trained(
    config: SocialConfig | AnalyticConfig | PredictiveConfig,
    path: Path,
    seeds: int,
    parent: RunDir | None = None,
) -> RunDir:
    """Start a run, go on with it, or take it as it is if it is done (it may have more seeds).

    Args:
        parent: run that predictive agents build on, if any.

    Raises:
        UserError: `path` holds a run of other settings, or of fewer seeds.
    """
    enable_compilation_cache()
    resume = is_run(path)
    if resume:
        run = RunDir(path)
        if run.info["num_seeds"] < seeds:
            raise UserError(
                f"{path} has {run.info['num_seeds']} seeds; allowed here: at least {seeds}"
            )
        found = run.load_config(type(config))
        for field in fields(config):
            there, here = getattr(found, field.name), getattr(config, field.name)
            if field.name != "runtime" and there != here:
                raise UserError(
                    f"{path} was run with {field.name} = {there}, the figure wants {here}; choose other --runs"
                )
        if run.info["status"] == "done":
            return run
    if isinstance(config, SocialConfig):
        return run_social(config, path, seeds=seeds, resume=resume)
    if isinstance(config, PredictiveConfig):
        return run_predictive(config, path, parent=parent, seeds=seeds, resume=resume)
    return run_analytic(config, path, seeds=seeds, resume=resume)


def column(run: RunDir, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [n], values [seeds, n]) of a metric."""
    metrics = read_metrics(run)
    values = metrics[name]
    return metrics["step"], (values[:, None] if values.ndim == 1 else values).T


def draw(axes: Axes, x: Any, y: np.ndarray, colour: str, label: str, style: str = "-") -> None:
    """Median over seeds, quartiles as a band, single seeds thinly; y [seeds, n]."""
    middle, low, high = median_and_quartiles(y)
    axes.plot(x, middle, style, color=colour, linewidth=2, label=label)
    if y.shape[0] > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, y.T, style, color=colour, alpha=0.25, linewidth=0.5)


def ending(run: RunDir, name: str, points: int = 4) -> dict[str, Any]:
    """Summary over seeds of the mean of a metric's last logged points."""
    _, values = column(run, name)
    return summary(values[:, -points:].mean(1))


def origin(run: RunDir) -> dict[str, Any]:
    """Commit and seconds behind a run."""
    return {"git": run.info["git"], "seeds": run.info["num_seeds"], **timing_totals(run)}


def write(
    figure: Figure, output: Path, rows: Mapping[str, Any], note: str = "", *, legend: bool = True
) -> None:
    """The PNG with a legend in every panel, JSON and drawn lines (CSV) beside it, and the numbers on stdout.

    Lines whose label starts with an underscore are in the CSV, but not in the legend.
    """
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if legend and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    if note:
        figure.supxlabel(note, fontsize="small", color="0.3")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=130)
    write_json(output.with_suffix(".json"), {**rows, "drawn_at": git_state()})
    _write_lines(figure, output.with_suffix(".csv"))
    print(json.dumps(rows, indent=2))
    print(output.with_suffix(".png"))


def _write_lines(figure: Figure, path: Path) -> None:
    """Every line that has a label, so that what a text says of a curve can be checked; nothing without such lines."""
    rows = [("panel", "line", "x", "y")]
    for i, axes in enumerate(figure.axes):
        panel = axes.get_title() or axes.get_ylabel() or str(i)
        for line in axes.lines:
            label = str(line.get_label())
            if label and not label.startswith("_child"):
                points = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
                for x, y in zip(*points, strict=True):
                    rows.append((panel, label.lstrip("_"), f"{x:.6g}", f"{y:.6g}"))
    if len(rows) > 1:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
