"""COCOA's figures (arXiv 2306.16803): trains what is missing, draws it beside the paper's values.

Runs are kept under `--runs` and continued where they were interrupted, so a figure can be made in
several sittings, and figures share their runs.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from configs import credit as presets
from internal_rl.credit.config import CreditRunConfig
from internal_rl.credit.measure import variance_report
from internal_rl.credit.run import run_shadow, run_train
from internal_rl.errors import UserError
from internal_rl.runs.cache import enable_compilation_cache
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir, is_run, write_json
from internal_rl.runs.statistics import stratified_bootstrap_ci
from reproductions import cocoa_paper as paper

LEARNED = ("cocoa_reward", "advantage", "q_critic", "trajectory_cv", "reinforce", "hca_return")
_MARK = {"marker": "x", "linestyle": "", "markersize": 7}


def fig1(
    lengths: tuple[int, ...] = paper.LENGTHS,
    methods: tuple[str, ...] = LEARNED,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig1"),
) -> None:
    """Fig. 1B left: mean treasure fraction over all evaluations, against length.

    Args:
        lengths: of key-to-door.
        methods: estimators, with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    rows: dict[str, Any] = {}
    for method in methods:
        for length in lengths:
            run = _train(f"cocoa-length-{length}", method, "learned", seeds, runs)
            area = _column(run, "eval_treasure").mean(0)
            rows[f"{method} {length}"] = _summary(area)
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(methods):
        own = [rows[f"{method} {length}"] for length in lengths]
        _errorbar(axes, lengths, own, f"C{i}", method)
        if method in paper.FIG1_TREASURE:
            axes.plot(paper.LENGTHS, paper.FIG1_TREASURE[method], color=f"C{i}", **_MARK)
    axes.set(xlabel="length", ylabel="mean treasure fraction", ylim=(-0.03, 1.03))
    _write(figure, axes, output, rows)


def fig1_snr(
    lengths: tuple[int, ...] = paper.LENGTHS,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig1-snr"),
) -> None:
    """Fig. 1B right: SNR in shadow training, averaged in bins of the policy's treasure fraction.

    Args:
        lengths: of key-to-door.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    rows: dict[str, Any] = {}
    for length in lengths:
        config = presets.get(f"cocoa-shadow-{length}")
        run = _run(run_shadow, config, runs / f"shadow-{length}", seeds)
        treasure = _column(run, "measured_treasure")
        for method in config.shadow.methods:
            binned = _binned(treasure, _column(run, f"snr_db/{method}"))
            rows[f"{method} {length}"] = _summary(binned)
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(paper.FIG1_SNR):
        own = [rows[f"{method} {length}"] for length in lengths]
        _errorbar(axes, lengths, own, f"C{i}", method)
        axes.plot(paper.LENGTHS, paper.FIG1_SNR[method], color=f"C{i}", **_MARK)
    axes.set(xlabel="length", ylabel="SNR in dB, first decision")
    _write(figure, axes, output, rows)


def fig2(
    environments: int = 10,
    overlaps: tuple[int, ...] = tuple(range(7)),
    output: Path = Path("docs/results/cocoa-fig2"),
) -> None:
    """Fig. 2B: normalised variance in the tree by state overlap, exact by enumeration.

    Args:
        environments: tree seeds 100, 101, ...
        overlaps: shared states per level.
        output: path of the PNG and the JSON, without suffix.
    """
    rows = {
        f"{name} {overlap}": _summary(values)
        for overlap in overlaps
        for name, values in _tree_variances(overlap, (4, 32), environments).items()
    }
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(paper.FIG2.items()):
        _errorbar(axes, overlaps, [rows[f"{name} {o}"] for o in overlaps], f"C{i}", name)
        axes.plot(range(7), values, color=f"C{i}", **_MARK)
    axes.set(xlabel="state overlap", ylabel="normalised variance in dB")
    _write(figure, axes, output, rows)


def fig7(environments: int = 10, output: Path = Path("docs/results/cocoa-fig7")) -> None:
    """Fig. 7: normalised variance in the tree at overlap 3, by number of reward groups.

    Args:
        environments: tree seeds 100, 101, ...
        output: path of the PNG and the JSON, without suffix.
    """
    found = _tree_variances(3, paper.FIG7_GROUPS, environments)
    rows = {name: _summary(values) for name, values in found.items()}
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    own = [rows[f"groups_{g}"] for g in paper.FIG7_GROUPS]
    _errorbar(axes, paper.FIG7_GROUPS, own, "C0", "groups of rewards")
    axes.plot(paper.FIG7_GROUPS, paper.FIG7, color="C0", **_MARK)
    axes.set(xlabel="groups per reward", ylabel="normalised variance in dB", xscale="log")
    _write(figure, axes, output, rows)


def fig3(
    methods: tuple[str, ...] = LEARNED,
    exact_methods: tuple[str, ...] = ("cocoa_reward", "q_critic", "advantage", "trajectory_cv"),
    length: int = 103,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig3"),
) -> None:
    """Fig. 3B: treasure fraction while training, exact models left and learned ones right.

    Args:
        methods: estimators with learned models.
        exact_methods: estimators with exact models.
        length: of key-to-door; the paper's values are drawn at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    preset = f"cocoa-length-{length}"
    sides = {
        "exact": {m: _train(preset, m, "exact", seeds, runs) for m in exact_methods},
        "learned": {m: _train(preset, m, "learned", seeds, runs) for m in methods},
    }
    sides = {side: trained for side, trained in sides.items() if trained}
    marks = {"exact": paper.FIG3_EXACT, "learned": paper.FIG3_LEARNED}
    if length != 103:
        marks = {"exact": {}, "learned": {}}
    _curves(sides, "eval_treasure", "treasure fraction", paper.FIG3_BATCHES, marks, output)


def fig4(
    methods: tuple[str, ...] = LEARNED[:-1],
    seeds: int = 5,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig4"),
) -> None:
    """Fig. 4B: fraction of correct choices in task interleaving while training.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    sides = {
        "learned": {m: _train("cocoa-interleaving", m, "learned", seeds, runs) for m in methods}
    }
    marks = {"learned": paper.FIG4}
    _curves(sides, "eval_correct", "fraction correct", paper.FIG4_BATCHES, marks, output)


def fig5(
    methods: tuple[str, ...] = (*LEARNED[:-1], "cocoa_feature"),
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig5"),
) -> None:
    """Fig. 5: treasure fraction when the treasure pays the same as a distractor.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    sides = {"learned": {m: _train("cocoa-aliasing", m, "learned", seeds, runs) for m in methods}}
    marks = {"learned": paper.FIG5}
    _curves(sides, "eval_treasure", "treasure fraction", paper.FIG5_BATCHES, marks, output)


def fig9(
    length: int = 103,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig9"),
) -> None:
    """Fig. 9: original HCA and HCA+; no clear difference in the paper.

    Args:
        length: of key-to-door; the paper's values are drawn at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    preset = f"cocoa-length-{length}"
    sides = {"learned": {m: _train(preset, m, "learned", seeds, runs) for m in paper.FIG9}}
    marks = {"learned": paper.FIG9 if length == 103 else {}}
    _curves(sides, "eval_treasure", "treasure fraction", paper.FIG9_BATCHES, marks, output)


def fig12(
    length: int = 103,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig12"),
) -> None:
    """Fig. 12: SNR of the first decision with exact models whose outputs are perturbed.

    Args:
        length: of key-to-door, 23 or 103; the paper's values are drawn at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    config = presets.get(f"cocoa-perturbed-{length}")
    run = _run(run_shadow, config, runs / f"perturbed-{length}", seeds)
    treasure, sizes = _column(run, "measured_treasure"), config.shadow.perturbations
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    rows: dict[str, Any] = {}
    for i, method in enumerate(config.shadow.exact_methods):
        own = []
        for size in sizes:
            snr = _column(run, f"snr_db/exact_{method}@{size:g}")
            own.append(_summary(_binned(treasure, snr)))
            rows[f"{method} {size:g}"] = own[-1]
        _errorbar(axes, sizes, own, f"C{i}", method)
        if method in paper.FIG12 and length == 103:
            axes.plot(paper.FIG12_PERTURBATIONS, paper.FIG12[method], color=f"C{i}", **_MARK)
    axes.set(xlabel="perturbation", ylabel="SNR in dB, first decision", xscale="log")
    _write(figure, axes, output, rows)


def fig10(
    methods: tuple[str, ...] = ("cocoa_reward", "cocoa_feature", "q_critic", "advantage"),
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig10"),
) -> None:
    """Fig. 10: treasure fraction around the batch where the treasure's sign switches.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    sides = {"learned": {m: _train("cocoa-switch", m, "learned", seeds, runs) for m in methods}}
    marks = {"learned": paper.FIG10}
    _curves(sides, "eval_treasure", "treasure fraction", paper.FIG10_BATCHES, marks, output)


SUBCOMMANDS = {
    "cocoa-fig1": fig1,
    "cocoa-fig1-snr": fig1_snr,
    "cocoa-fig2": fig2,
    "cocoa-fig3": fig3,
    "cocoa-fig4": fig4,
    "cocoa-fig5": fig5,
    "cocoa-fig7": fig7,
    "cocoa-fig9": fig9,
    "cocoa-fig10": fig10,
    "cocoa-fig12": fig12,
}


def _train(preset: str, method: str, model: Any, seeds: int, runs: Path) -> RunDir:
    config = presets.get(preset, method, model)
    folder = runs / preset.removeprefix("cocoa-") / f"{method}-{model}"
    return _run(run_train, config, folder, seeds)


def _run(function: Any, config: CreditRunConfig, path: Path, seeds: int) -> RunDir:
    """Start a run, go on with it, or take it as it is if it is done."""
    enable_compilation_cache()
    if not is_run(path):
        return function(config, path, seeds=seeds)
    run = RunDir(path)
    if run.info["num_seeds"] != seeds:
        raise UserError(f"{path} has {run.info['num_seeds']} seeds; allowed here: {seeds}")
    return run if run.info["status"] == "done" else function(config, path, seeds=seeds, resume=True)


def _tree_variances(
    overlap: int, groups: Sequence[int], environments: int
) -> dict[str, np.ndarray]:
    from dataclasses import replace

    found: dict[str, list[float]] = {}
    for seed in range(100, 100 + environments):
        config = presets.PRESETS["cocoa-tree"]
        tree = replace(config.world.tree, overlap=overlap, seed=seed)
        config = replace(config, world=replace(config.world, tree=tree))
        report = variance_report(config, ("reinforce", "hca_plus", "cocoa_reward"), groups)
        for name, metrics in report["estimators"].items():
            found.setdefault(name, []).append(metrics["variance_db"])
    return {name: np.array(values) for name, values in found.items()}


def _column(run: RunDir, name: str) -> np.ndarray:
    column = read_metrics(run)[name]
    return column[:, None] if column.ndim == 1 else column  # [points, seeds]


def _binned(treasure: np.ndarray, values: np.ndarray, bins: int = 10) -> np.ndarray:
    """Mean per bin of the treasure fraction, then over bins; one number per seed."""
    index = np.minimum((treasure * bins).astype(int), bins - 1)
    found = []
    for seed in range(values.shape[1]):
        finite = np.isfinite(values[:, seed])
        own = values[finite, seed], index[finite, seed]
        found.append(np.mean([own[0][own[1] == b].mean() for b in np.unique(own[1])]))
    return np.array(found)


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Mean over seeds with its bootstrap interval and standard error."""
    low, high = stratified_bootstrap_ci(values, np.mean)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return {
        "mean": float(values.mean()),
        "ci95": [low, high],
        "standard_error": error,
        "seeds": len(values),
    }


def _errorbar(axes: Any, x: Sequence[float], rows: Sequence[dict], colour: str, name: str) -> None:
    middle = np.array([row["mean"] for row in rows])
    low, high = np.array([row["ci95"] for row in rows]).T
    error = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
    axes.errorbar(x, middle, error, color=colour, marker="o", capsize=3, label=name)


def _curves(
    sides: Mapping[str, Mapping[str, RunDir]],
    metric: str,
    label: str,
    batches: Sequence[int],
    marks: Mapping[str, Mapping[str, Sequence[float]]],
    output: Path,
) -> None:
    figure = Figure(figsize=(6 * len(sides), 4.8), layout="constrained")
    panels = figure.subplots(1, len(sides), squeeze=False)[0]
    names = list(dict.fromkeys(name for side in sides.values() for name in side))
    rows: dict[str, Any] = {}
    for axes, (side, methods) in zip(panels, sides.items(), strict=True):
        for method, run in methods.items():
            colour = f"C{names.index(method)}"
            x, y = read_metrics(run)["step"], _column(run, metric)
            middle = y.mean(1)
            error = y.std(1, ddof=1) / np.sqrt(y.shape[1]) if y.shape[1] > 1 else 0 * middle
            axes.plot(x, middle, color=colour, label=method)
            axes.fill_between(x, middle - error, middle + error, color=colour, alpha=0.2, lw=0)
            own = {"mean over training": _summary(y.mean(0))}
            for batch in batches:
                if batch <= x[-1]:
                    own[str(batch)] = _summary(y[np.abs(x - batch).argmin()])
            if method in marks.get(side, {}):
                values = marks[side][method]
                axes.plot(batches[: len(values)], values, color=colour, **_MARK)
                own["paper"] = dict(zip(map(str, batches), values, strict=False))
            rows[f"{method} {side}"] = own | {"run": run.info["git"]}
        axes.set(xlabel="training batches", ylabel=label, title=f"{side} models")
        axes.set_ylim(-0.03, 1.03)
    _write(figure, panels[-1], output, rows)


def _write(figure: Figure, axes: Any, output: Path, rows: dict[str, Any]) -> None:
    lines = [line for panel in figure.axes for line in panel.lines]
    if any(line.get_marker() == _MARK["marker"] for line in lines):
        axes.plot([], [], color="0.3", label="paper, digitised", **_MARK)
    axes.legend(fontsize="small")
    for panel in figure.axes:
        panel.grid(alpha=0.25)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=130)
    write_json(output.with_suffix(".json"), rows)
    print(json.dumps(rows, indent=2))
    print(output.with_suffix(".png"))
