"""COCOA's figures of the tree (arXiv 2306.16803, Figs. 2B and 7): variances, exact by enumeration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from configs import credit as presets
from internal_rl.credit.measure import variance_report
from reproductions import cocoa_paper as paper
from reproductions.cocoa_draw import MARK, errorbar, summary, write


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
        f"{name} {overlap}": summary(values)
        for overlap in overlaps
        for name, values in _tree_variances(overlap, (4, 32), environments).items()
    }
    draw_fig2(rows, overlaps, output)


def draw_fig2(rows: dict[str, Any], overlaps: Sequence[int], output: Path) -> None:
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(paper.FIG2.items()):
        errorbar(axes, overlaps, [rows[f"{name} {o}"] for o in overlaps], f"C{i}", name)
        axes.plot(range(7), values, color=f"C{i}", **MARK)
    axes.set(xlabel="state overlap", ylabel="normalised variance in dB", title=_tree_title(rows))
    axes.set_ylim(bottom=min(row["ci95"][0] for row in rows.values()) - 0.9)
    write(figure, output, rows, loc="lower left", ncols=3)


def fig7(environments: int = 10, output: Path = Path("docs/results/cocoa-fig7")) -> None:
    """Fig. 7: normalised variance in the tree at overlap 3, by number of reward groups.

    Args:
        environments: tree seeds 100, 101, ...
        output: path of the PNG and the JSON, without suffix.
    """
    found = _tree_variances(3, paper.FIG7_GROUPS, environments)
    draw_fig7({name: summary(values) for name, values in found.items()}, output)


def draw_fig7(rows: dict[str, Any], output: Path) -> None:
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    own = [rows[f"groups_{g}"] for g in paper.FIG7_GROUPS]
    errorbar(axes, paper.FIG7_GROUPS, own, "C0", "COCOA, rewards in groups")
    axes.plot(paper.FIG7_GROUPS, paper.FIG7, color="C0", **MARK)
    for i, (name, value) in enumerate(paper.FIG7_LINES.items(), start=1):
        axes.axhline(rows[name]["mean"], color=f"C{i}", label=name)
        axes.plot(paper.FIG7_GROUPS[-1:], [value], color=f"C{i}", **MARK)
    axes.set(xlabel="groups per reward", ylabel="normalised variance in dB", xscale="log")
    axes.set_xticks(paper.FIG7_GROUPS, [str(g) for g in paper.FIG7_GROUPS])
    axes.minorticks_off()
    axes.set_title(f"overlap 3, {_tree_title(rows)}")
    write(figure, output, rows)


def _tree_title(rows: dict[str, Any]) -> str:
    trees = next(iter(rows.values()))["seeds"]
    return f"tree, exact by enumeration; bars: 95 % interval, {trees} trees"


def _tree_variances(
    overlap: int, groups: Sequence[int], environments: int
) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for seed in range(100, 100 + environments):
        config = presets.PRESETS["cocoa-tree"]
        tree = replace(config.world.tree, overlap=overlap, seed=seed)
        config = replace(config, world=replace(config.world, tree=tree))
        report = variance_report(config, ("reinforce", "hca_plus", "cocoa_reward"), groups)
        for name, metrics in report["estimators"].items():
            found.setdefault(name, []).append(metrics["variance_db"])
    return {name: np.array(values) for name, values in found.items()}
