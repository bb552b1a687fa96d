"""COCOA's figures (arXiv 2306.16803): trains what is missing, draws it beside the paper's values.

Runs are kept under `--runs` and continued where they were interrupted, so a figure can be made in
several sittings, and figures share their runs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from matplotlib.figure import Figure

from configs import credit as presets
from internal_rl.credit.heatmap import contribution_map, run_map
from internal_rl.credit.run import build_model, last_state, run_shadow
from internal_rl.credit.world import build_world
from reproductions import cocoa_paper as paper
from reproductions import cocoa_tree
from reproductions.cocoa_draw import (
    COLOURS,
    MARK,
    CurvePlot,
    binned,
    column,
    draw_curves,
    draw_fig4c,
    errorbar,
    finished,
    summary,
    trained,
    write,
)

TREASURE = "treasure fraction"
LEARNED = ("cocoa_reward", "advantage", "q_critic", "trajectory_cv", "reinforce", "hca_return")


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
            run = trained(f"cocoa-length-{length}", method, "learned", seeds, runs)
            area = column(run, "eval_treasure").mean(0)
            rows[f"{method} {length}"] = summary(area)
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.subplots()
    # A line says that what lies between two lengths was measured, too.
    gaps = [a for a in paper.LENGTHS if min(lengths) < a < max(lengths) and a not in lengths]
    for i, method in enumerate(methods):
        colour = COLOURS[method]
        own = [rows[f"{method} {length}"] for length in lengths]
        # Side by side around their length, so that they do not hide each other.
        beside = 1.2 * (i - (len(methods) - 1) / 2) + np.array(lengths)
        errorbar(axes, beside, own, colour, method, linestyle="" if gaps else "-")
        if method in paper.FIG1_TREASURE:
            axes.plot(paper.LENGTHS, paper.FIG1_TREASURE[method], color=colour, **MARK)
    axes.set(ylabel="mean treasure fraction", ylim=(-0.03, 1.03), xticks=paper.LENGTHS)
    axes.set_xlabel("length (ours side by side around each)")
    axes.set_title(f"key-to-door, learned models; bars: 95 % interval, {seeds} seeds")
    write(figure, output, rows, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def fig1_snr(
    lengths: tuple[int, ...] = paper.LENGTHS,
    methods: tuple[str, ...] = (),
    seeds: int = 10,
    every: int = 5,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig1-snr"),
) -> None:
    """Fig. 1B right: SNR in shadow training, averaged in bins of the policy's treasure fraction.

    Args:
        lengths: of key-to-door.
        methods: estimators to measure, all eight where none is named; HCA+ costs most.
        seeds: trained at once.
        every: batches between measurements, each of which costs as much as many batches; for new runs.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    rows: dict[str, Any] = {}
    for length in lengths:
        config = presets.get(f"cocoa-shadow-{length}")
        if methods:
            config = replace(config, shadow=replace(config.shadow, methods=methods))
        config = replace(config, runtime=replace(config.runtime, log_every=every))
        run = finished(run_shadow, config, runs / f"shadow-{length}", seeds)
        treasure = column(run, "measured_treasure")
        for method in config.shadow.methods:
            snr = binned(treasure, column(run, f"snr_db/{method}"))
            rows[f"{method} {length}"] = summary(snr)
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for method, marks in paper.FIG1_SNR.items():
        if methods and method not in methods:
            continue
        own = [rows[f"{method} {length}"] for length in lengths]
        errorbar(axes, lengths, own, COLOURS[method], method)
        axes.plot(paper.LENGTHS, marks, color=COLOURS[method], **MARK)
    axes.set(xlabel="length", ylabel="SNR in dB, first decision")
    axes.set_title(f"key-to-door, shadow training; bars: 95 % interval, {seeds} seeds")
    write(figure, output, rows, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def fig3(
    methods: tuple[str, ...] = LEARNED,
    exact_methods: tuple[str, ...] = ("cocoa_reward", "q_critic", "advantage", "trajectory_cv"),
    length: int = 103,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    published: Path | None = None,
    output: Path = Path("docs/results/cocoa-fig3"),
) -> None:
    """Fig. 3B: treasure fraction while training, exact models left and learned ones right.

    Args:
        methods: estimators with learned models.
        exact_methods: estimators with exact models.
        length: of key-to-door; the paper's values are drawn at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        published: CSV of this figure; methods without a run under --runs are drawn from it, not trained.
        output: path of the PNG and the JSON, without suffix.
    """
    preset = f"cocoa-length-{length}"
    models = {"exact": exact_methods, "learned": methods}
    models = {model: names for model, names in models.items() if names}
    marks = {"exact": paper.FIG3_EXACT, "learned": paper.FIG3_LEARNED} if length == 103 else {}
    label = f"treasure fraction, key-to-door of length {length}"
    plot = CurvePlot(preset, "eval_treasure", label, paper.FIG3_BATCHES, marks)
    draw_curves(plot, models, seeds, runs, published, output)


def fig4(
    methods: tuple[str, ...] = LEARNED[:-1],
    seeds: int = 5,
    runs: Path = Path("runs/cocoa"),
    published: Path | None = None,
    output: Path = Path("docs/results/cocoa-fig4"),
) -> None:
    """Fig. 4B: fraction of correct choices in task interleaving while training.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        published: CSV of this figure; methods without a run under --runs are drawn from it, not trained.
        output: path of the PNG and the JSON, without suffix.
    """
    marks = {"learned": paper.FIG4}
    plot = CurvePlot(
        "cocoa-interleaving", "eval_correct", "fraction correct", paper.FIG4_BATCHES, marks
    )
    draw_curves(plot, {"learned": methods}, seeds, runs, published, output)


def fig4c(
    methods: tuple[str, ...] = ("cocoa_reward", "hca_plus"),
    model: Literal["learned", "exact"] = "learned",
    policy: str = "cocoa_reward",
    batches: int = 10_000,
    episodes: int = 64,
    seeds: int = 1,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig4c"),
) -> None:
    """Fig. 4C: mean contribution of each query to each rewarded answer in task interleaving.

    Args:
        methods: of COCOA's family; one panel each.
        model: learned: each method's own run, with its own policy; exact: true coefficients of every
            method at the policy that `policy` with a learned model has trained.
        policy: estimator that trains the policy, for exact models.
        batches: training batches of the runs; below 10,000 they are kept apart from Fig. 4B's.
        episodes: over which contributions are averaged.
        seeds: trained at once; maps are averaged over them.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    preset, maps = "cocoa-interleaving", {}
    for method in methods:
        source = method if model == "learned" else policy
        run = trained(preset, source, "learned", seeds, runs, batches)
        if model == "learned":
            maps[method] = run_map(run, episodes).mean(0)
            continue
        states, config = last_state(run), presets.get(preset, method, "exact")
        init = build_model(config.credit, build_world(config.world)).init
        found = []
        for i in range(seeds):
            state = jax.tree.map(lambda x, i=i: x[i], states)
            state = state.replace(credit=init(state.key))
            found.append(contribution_map(config, state, episodes, refresh=True))
        maps[method] = np.mean(found, axis=0)
    at = f"{policy}'s policy" if model == "exact" else "each with its own policy"
    title = (
        f"{model} coefficients, {at} after {batches} batches, mean of {seeds} x {episodes} episodes"
    )
    draw_fig4c(maps, title, output)


def fig5(
    methods: tuple[str, ...] = (*LEARNED[:-1], "cocoa_feature"),
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    published: Path | None = None,
    output: Path = Path("docs/results/cocoa-fig5"),
) -> None:
    """Fig. 5: treasure fraction when the treasure pays the same as a distractor.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        published: CSV of this figure; methods without a run under --runs are drawn from it, not trained.
        output: path of the PNG and the JSON, without suffix.
    """
    marks = {"learned": paper.FIG5}
    plot = CurvePlot(
        "cocoa-aliasing",
        "eval_treasure",
        f"{TREASURE}, treasure pays as small apples",
        paper.FIG5_BATCHES,
        marks,
    )
    draw_curves(plot, {"learned": methods}, seeds, runs, published, output)


def fig9(
    length: int = 103,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    published: Path | None = None,
    output: Path = Path("docs/results/cocoa-fig9"),
) -> None:
    """Fig. 9: original HCA and HCA+; no clear difference in the paper.

    Args:
        length: of key-to-door; the paper's values are drawn at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        published: CSV of this figure; methods without a run under --runs are drawn from it, not trained.
        output: path of the PNG and the JSON, without suffix.
    """
    preset = f"cocoa-length-{length}"
    marks = {"learned": paper.FIG9} if length == 103 else {}
    plot = CurvePlot(
        preset, "eval_treasure", f"{TREASURE}, length {length}", paper.FIG9_BATCHES, marks
    )
    draw_curves(plot, {"learned": tuple(paper.FIG9)}, seeds, runs, published, output)


def fig12(
    length: int = 23,
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    output: Path = Path("docs/results/cocoa-fig12"),
) -> None:
    """Fig. 12: SNR of the first decision with exact models whose outputs are perturbed.

    Args:
        length: of key-to-door, 23 or 103. The digitised values come without one; they are drawn at 23, where
            all four methods are within 3 dB of them, which they are not at 103.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    config = presets.get(f"cocoa-perturbed-{length}")
    run = finished(run_shadow, config, runs / f"perturbed-{length}", seeds)
    treasure, sizes = column(run, "measured_treasure"), config.shadow.perturbations
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    rows: dict[str, Any] = {}
    for method in config.shadow.exact_methods:
        own = []
        for size in sizes:
            snr = column(run, f"snr_db/exact_{method}@{size:g}")
            own.append(summary(binned(treasure, snr)))
            rows[f"{method} {size:g}"] = own[-1]
        errorbar(axes, sizes, own, COLOURS[method], method)
        if method in paper.FIG12 and length == 23:
            marks = paper.FIG12[method]
            axes.plot(list(marks), list(marks.values()), color=COLOURS[method], **MARK)
    axes.set(xlabel="perturbation", ylabel="SNR in dB, first decision", xscale="log")
    axes.set_title(f"length {length}, exact models perturbed; bars: 95 % interval, {seeds} seeds")
    write(figure, output, rows)


def fig10(
    methods: tuple[str, ...] = ("cocoa_reward", "cocoa_feature", "q_critic", "advantage"),
    seeds: int = 10,
    runs: Path = Path("runs/cocoa"),
    published: Path | None = None,
    output: Path = Path("docs/results/cocoa-fig10"),
) -> None:
    """Fig. 10: treasure fraction around the batch where the treasure's sign switches.

    Args:
        methods: estimators with learned models.
        seeds: trained at once.
        runs: folder of the run directories.
        published: CSV of this figure; methods without a run under --runs are drawn from it, not trained.
        output: path of the PNG and the JSON, without suffix.
    """
    marks = {"learned": paper.FIG10}
    plot = CurvePlot(
        "cocoa-switch",
        "eval_treasure",
        f"{TREASURE}, its sign switches at 60,000",
        paper.FIG10_BATCHES,
        marks,
        shown=(59_500, 65_500),
    )
    draw_curves(plot, {"learned": methods}, seeds, runs, published, output)


SUBCOMMANDS = {
    "cocoa-fig1": fig1,
    "cocoa-fig1-snr": fig1_snr,
    "cocoa-fig2": cocoa_tree.fig2,
    "cocoa-fig3": fig3,
    "cocoa-fig4": fig4,
    "cocoa-fig4c": fig4c,
    "cocoa-fig5": fig5,
    "cocoa-fig7": cocoa_tree.fig7,
    "cocoa-fig9": fig9,
    "cocoa-fig10": fig10,
    "cocoa-fig12": fig12,
}
