"""What COCOA's figures share: runs that are trained where they are missing, summaries, curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from configs import credit as presets
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.run import run_train
from internal_rl.errors import UserError
from internal_rl.runs.cache import enable_compilation_cache
from internal_rl.runs.config_io import leaves
from internal_rl.runs.run_dir import RunDir, is_run, write_json
from internal_rl.runs.statistics import stratified_bootstrap_ci
from reproductions.cocoa_curves import Curve, curve_of, read_curves, write_curves

COLOURS = {
    name: f"C{i}"
    for i, name in enumerate(
        (
            "cocoa_reward",
            "advantage",
            "q_critic",
            "trajectory_cv",
            "reinforce",
            "hca_return",
            "hca_plus",
            "counterfactual_return",
            "cocoa_feature",
            "hca",
        )
    )
}
"""One colour per estimator in all figures."""
MARK = {"marker": "x", "linestyle": "", "markersize": 7}
"""How the paper's digitised values are drawn."""


def trained(
    preset: str, method: str, model: Any, seeds: int, runs: Path, batches: int | None = None
) -> RunDir:
    """A run of a preset; with other `batches` than the preset's it has a folder of its own."""
    config = presets.get(preset, method, model)
    folder = _folder(preset, method, model, runs)
    if batches is not None and batches != config.train.batches:
        folder = folder.with_name(f"{folder.name}-{batches}-batches-{seeds}-seeds")
        config = replace(config, train=replace(config.train, batches=batches))
        every = min(config.runtime.checkpoint_every, batches)
        config = replace(config, runtime=replace(config.runtime, checkpoint_every=every))
    return finished(run_train, config, folder, seeds)


def _folder(preset: str, method: str, model: str, runs: Path) -> Path:
    return runs / preset.removeprefix("cocoa-") / f"{method}-{model}"


def finished(function: Any, config: CreditRunConfig, path: Path, seeds: int) -> RunDir:
    """Start a run, go on with it, or take it as it is if it is done.

    Raises:
        UserError: `path` holds a run of other seeds or settings than asked for (those of `runtime`, which
            say how to compute and not what, aside).
    """
    enable_compilation_cache()
    if not is_run(path):
        return function(config, path, seeds=seeds)
    run = RunDir(path)
    if run.info["num_seeds"] != seeds:
        raise UserError(f"{path} has {run.info['num_seeds']} seeds; allowed here: {seeds}")
    wanted = dict(leaves(config))
    for name, value in leaves(run.load_config(CreditRunConfig)):
        if value != wanted[name] and not name.startswith("runtime."):
            raise UserError(
                f"{name} of {path} is {value!r}; allowed here: {wanted[name]!r}. "
                "Choose another folder with --runs, or move this one away"
            )
    return run if run.info["status"] == "done" else function(config, path, seeds=seeds, resume=True)


def column(run: RunDir, name: str) -> np.ndarray:
    return curve_of(run, name).values


def binned(treasure: np.ndarray, values: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean per bin of the treasure fraction, then over bins; one number per seed."""
    index = np.minimum((treasure * bins).astype(int), bins - 1)
    found = []
    for seed in range(values.shape[1]):
        finite = np.isfinite(values[:, seed])
        own = values[finite, seed], index[finite, seed]
        found.append(np.mean([own[0][own[1] == b].mean() for b in np.unique(own[1])]))
    return np.array(found)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean over seeds with its bootstrap interval and standard error."""
    low, high = stratified_bootstrap_ci(values, np.mean)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return {
        "mean": float(values.mean()),
        "ci95": [low, high],
        "standard_error": error,
        "seeds": len(values),
    }


def errorbar(axes: Any, x: Any, rows: Sequence[dict], colour: str, name: str, **style: Any) -> None:
    middle = np.array([row["mean"] for row in rows])
    low, high = np.array([row["ci95"] for row in rows]).T
    error = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
    axes.errorbar(x, middle, error, color=colour, marker="o", capsize=3, label=name, **style)


@dataclass(frozen=True)
class CurvePlot:
    """What a figure of training curves shows.

    Attributes:
        preset: of the runs.
        metric: as logged.
        label: of the y axis.
        batches: where the JSON has numbers, and the paper's values lie.
        marks: the paper's values by model and method.
        shown: first and last batch that are drawn; None: all.
    """

    preset: str
    metric: str
    label: str
    batches: Sequence[int]
    marks: Mapping[str, Mapping[str, Sequence[float]]]
    shown: tuple[int, int] | None = None


def draw_curves(
    plot: CurvePlot,
    models: Mapping[str, Sequence[str]],
    seeds: int,
    runs: Path,
    published: Path | None,
    output: Path,
) -> None:
    """One panel per model with its methods' curves; beside the JSON a CSV with every point of every seed.

    A curve is that of the run under `runs`, else the published one, else of a run trained now.
    """
    known = read_curves(published, plot.preset, plot.metric, seeds) if published else {}

    def find(method: str, model: str) -> Curve:
        if (model, method) in known and not is_run(_folder(plot.preset, method, model, runs)):
            return known[model, method]
        return curve_of(trained(plot.preset, method, model, seeds, runs), plot.metric)

    sides = {model: {m: find(m, model) for m in methods} for model, methods in models.items()}
    figure = Figure(figsize=(7.5 * len(sides), 4.8), layout="constrained")
    panels = figure.subplots(1, len(sides), squeeze=False)[0]
    rows: dict[str, Any] = {}
    for axes, (side, methods) in zip(panels, sides.items(), strict=True):
        for method, curve in methods.items():
            colour, x, y = COLOURS[method], curve.steps, curve.values
            middle = y.mean(1)
            error = y.std(1, ddof=1) / np.sqrt(y.shape[1]) if y.shape[1] > 1 else 0 * middle
            axes.plot(x, middle, color=colour, label=method)
            axes.fill_between(x, middle - error, middle + error, color=colour, alpha=0.2, lw=0)
            own = {"mean over training": summary(y.mean(0))}
            for batch in plot.batches:
                if batch <= x[-1]:
                    own[str(batch)] = summary(y[np.abs(x - batch).argmin()])
            if method in plot.marks.get(side, {}):
                values = plot.marks[side][method]
                axes.plot(plot.batches[: len(values)], values, color=colour, **MARK)
                own["paper"] = dict(zip(map(str, plot.batches), values, strict=False))
            rows[f"{method} {side}"] = own | {"run": curve.git}
        title = f"{side} models; band: one standard error, {seeds} seeds"
        axes.set(xlabel="training batches", ylabel=plot.label, title=title)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(plot.shown)
    write(figure, output, rows, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    write_curves(output.with_suffix(".csv"), plot.preset, plot.metric, sides)


def write(figure: Figure, output: Path, rows: dict[str, Any], **legend: Any) -> None:
    """The PNG with a legend in every panel, and the JSON beside it."""
    for axes in figure.axes:
        if any(line.get_marker() == MARK["marker"] for line in axes.lines):
            axes.plot([], [], color="0.3", label="paper, digitised", **MARK)
        axes.legend(fontsize="small", **legend)
        axes.grid(alpha=0.25)
    save(figure, output, rows)


def save(figure: Figure, output: Path, rows: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=130)
    write_json(output.with_suffix(".json"), rows)
    print(json.dumps(rows, indent=2))
    print(output.with_suffix(".png"))


def draw_fig4c(maps: dict[str, np.ndarray], title: str, output: Path) -> None:
    figure = Figure(figsize=(4.2 * len(maps), 3.9), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (method, found) in zip(panels, maps.items(), strict=True):
        axes.imshow(found, vmin=0, vmax=1, cmap="viridis")
        axes.set(title=method, xlabel="context of the answer", ylabel="context of the query")
    figure.colorbar(panels[-1].images[0], ax=list(panels), label="contribution, rows sum to 1")
    figure.suptitle(title, fontsize="medium")
    rows = {
        method: {"map": found.tolist(), **off_diagonal(found)} for method, found in maps.items()
    }
    save(figure, output, {"title": title, **rows})


def off_diagonal(found: np.ndarray) -> dict[str, float]:
    """Mean share that a query's own answer and any other answer get."""
    size = len(found)
    own = float(np.trace(found) / size)
    return {"own answer": own, "each other answer": (1.0 - own) / max(size - 1, 1)}
