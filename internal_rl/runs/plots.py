"""Figures of a run, as PNG. Each function draws one figure, writes it and returns its path.

Figures are made without pyplot: nothing is kept alive after the call, and no display is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from internal_rl.runs.statistics import (
    ArrayLike,
    iqm,
    median_and_quartiles,
    stratified_bootstrap_ci,
)

PALETTE = np.array(
    [
        (230, 60, 60),
        (70, 130, 240),
        (60, 180, 90),
        (245, 190, 40),
        (160, 90, 210),
        (240, 130, 40),
        (60, 190, 200),
        (235, 110, 180),
        (140, 100, 70),
        (150, 160, 60),
    ],
    np.uint8,
)
"""RGB of sub-goals in worlds that name no colours."""

Curve = tuple[ArrayLike, ArrayLike]
"""(x[steps], y[seeds, steps] or y[steps])."""
_BOOTSTRAP_REPS = 500  # per point of a curve


@dataclass(frozen=True)
class SwitchingTrajectory:
    """One episode for `switching_trajectories`."""

    beta: ArrayLike
    """float[T], the switching gate β_t."""
    goal: ArrayLike
    """int[T], colour of the true sub-goal that is active at t."""
    length: int
    """Steps before the padding."""
    title: str = ""
    """Shown above the panel, e.g. the task."""


def learning_curves(
    path: str | Path,
    curves: Mapping[str, Curve],
    *,
    ylabel: str = "success rate",
    xlabel: str = "training episodes",
    title: str = "",
    scale: Literal["linear", "log", "both"] = "both",
    band: Literal["ci", "quartiles"] = "ci",
    episodes_per_point: int | None = None,
) -> Path:
    """Curves of several methods over seeds, with linear and logarithmic success axis.

    Args:
        curves: x and y of each method.
        band: ci: line = interquartile mean over seeds, band = its 95 % bootstrap interval.
            quartiles: line = median, band = quartiles, as in the paper's Fig. 8. Single seeds are
                drawn thinly.
        episodes_per_point: episodes behind each plotted rate of one seed. The logarithmic panel
            ends at one success in that many episodes; lower values, 0 included, are drawn on that
            line, which says so.
    """
    scales = ("linear", "log") if scale == "both" else (scale,)
    figure = Figure(figsize=(5.6 * len(scales), 4.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        floor = _log_floor(curves, episodes_per_point) if kind == "log" else None
        for colour, (name, (x, y)) in zip(_cycle(len(curves)), curves.items(), strict=True):
            _draw_curve(axes, name, np.asarray(x), np.asarray(y), colour, band, floor)
        if floor is not None:
            axes.set_yscale("log")
            axes.set_ylim(floor / 2.2, 1.6 * max(1.0, _highest(curves)))
            axes.axhline(floor, color="0.4", linestyle=":", linewidth=1)
            text = (
                f"1 success in {episodes_per_point} episodes; 0 is drawn on this line"
                if episodes_per_point
                else "smallest value above 0; 0 is drawn on this line"
            )
            axes.text(0.98, floor / 1.12, text, transform=axes.get_yaxis_transform(), **_NOTE)
        elif _highest(curves) <= 1.0:
            axes.set_ylim(-0.03, 1.03)
        _finish(axes, xlabel, f"{ylabel} ({kind} scale)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # updates, episodes
    seeds = sorted({np.atleast_2d(np.asarray(y)).shape[0] for _, y in curves.values()})
    what = "IQM, 95 % bootstrap interval" if band == "ci" else "median, quartiles"
    count = "–".join(map(str, sorted({seeds[0], seeds[-1]})))
    note = f"line and band: {what} over {count} seed{'s' if seeds[-1] > 1 else ''}"
    figure.legend(
        handles=figure.axes[0].get_legend_handles_labels()[0],
        loc="outside lower center",
        ncols=2 * len(scales),  # more would not fit the width
        fontsize="small",
        title=note,
        title_fontsize="small",
    )
    figure.suptitle(title)
    return _save(figure, path)


def switching_trajectories(
    path: str | Path,
    trajectories: Sequence[SwitchingTrajectory],
    *,
    threshold: float = 0.5,
    title: str = "When the metacontroller switches",
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> Path:
    """β_t over the coloured true sub-goals, one panel per episode (paper, Fig. 6).

    Hard switches (β_t ≥ threshold) are marked by triangles; aligned switching has one at the left
    edge of each colour.
    """
    figure = Figure(figsize=(9.0, 0.9 + 1.9 * len(trajectories)), layout="constrained")
    panels = figure.subplots(len(trajectories), 1, squeeze=False)[:, 0]
    goals: set[int] = set()
    longest = max(item.length for item in trajectories)
    for axes, item in zip(panels, trajectories, strict=True):
        beta = np.asarray(item.beta, dtype=float)[: item.length]
        goal = np.asarray(item.goal)[: item.length]
        goals |= set(goal.tolist())
        _draw_goals(axes, goal, colours)
        steps = np.arange(item.length)
        axes.step(steps, beta, where="mid", color="black", linewidth=1.2)
        axes.plot(steps, beta, ".", color="black", markersize=4)
        hard = steps[beta >= threshold]
        axes.plot(hard, np.full(hard.shape, 1.12), "v", color="crimson", markersize=6)
        axes.axhline(threshold, color="0.3", linestyle="--", linewidth=0.8)
        axes.set(ylim=(-0.05, 1.22), xlim=(-0.5, longest - 0.5), ylabel=r"gate $\beta_t$")
        axes.set_yticks([0.0, 0.5, 1.0])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(item.title, fontsize="small", loc="left")
    panels[-1].set_xlabel("time step t")
    switch = r"hard switch ($\beta_t \geq$ threshold)"
    line = {"color": "0.3", "linestyle": "--", "linewidth": 0.8}
    handles = [
        Line2D([], [], color="black", marker=".", label=r"gate $\beta_t$"),
        Line2D([], [], color="crimson", marker="v", linestyle="", label=switch),
        Line2D([], [], **line, label=f"threshold {threshold:g}"),
        *(Patch(color=_hex(g, colours), label=f"true sub-goal {g}") for g in sorted(goals)),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(title)
    return _save(figure, path)


def stage_losses(
    path: str | Path,
    stages: Mapping[str, Mapping[str, Curve]],
    *,
    references: Mapping[str, Mapping[str, float]] | None = None,
    ylabels: Mapping[str, str] | None = None,
    title: str = "",
) -> Path:
    """Training losses, one panel per stage.

    Args:
        stages: per stage the named curves (steps, values).
        references: per stage named horizontal lines, e.g. the expert's own entropy.
        ylabels: per stage the unit of its curves, where that is not nats per step.
    """
    columns = min(len(stages), 2)
    rows = -(-len(stages) // 2)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(stages) :]:
        axes.set_visible(False)
    for axes, (stage, curves) in zip(panels, stages.items(), strict=False):
        lines = (references or {}).get(stage, {})
        for colour, (name, (x, y)) in zip(_cycle(len(curves)), curves.items(), strict=True):
            _draw_curve(axes, name, np.asarray(x), np.asarray(y), colour, "quartiles", None)
        for i, (name, value) in enumerate(lines.items()):
            axes.axhline(value, color="0.3", linestyle=_DASHES[i % 3], linewidth=1, label=name)
        axes.set_title(stage)
        if axes.get_ylim()[0] > 0:
            axes.set_ylim(bottom=0)
        _finish(axes, "gradient steps", (ylabels or {}).get(stage, "nats per step"))
        axes.legend(fontsize="small")
    figure.suptitle(title)
    return _save(figure, path)


_DASHES = ("--", ":", "-.")
_NOTE = {"ha": "right", "va": "top", "fontsize": "x-small", "color": "0.3"}


def _draw_curve(
    axes: Axes,
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    colour: str,
    band: Literal["ci", "quartiles"],
    floor: float | None,
) -> None:
    y = np.atleast_2d(y).astype(float)  # [seeds, steps]
    if x.shape != y.shape[1:]:
        raise ValueError(f"curve {name}: {x.shape[0]} x-values for y of shape {y.shape}")
    if band == "ci":
        middle = iqm(y, axis=0)
        intervals = [stratified_bootstrap_ci(column, reps=_BOOTSTRAP_REPS) for column in y.T]
        low, high = np.array(intervals).reshape(-1, 2).T
    else:
        middle, low, high = median_and_quartiles(y)
    shown = [v if floor is None else np.maximum(v, floor) for v in (middle, low, high, y)]
    axes.plot(x, shown[0], color=colour, linewidth=2, label=name, marker="." if len(x) < 3 else "")
    if y.shape[0] > 1:
        axes.fill_between(x, shown[1], shown[2], color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, shown[3].T, color=colour, alpha=0.35, linewidth=0.6)


def _draw_goals(axes: Axes, goal: np.ndarray, colours: Any) -> None:
    starts = np.flatnonzero(np.diff(goal, prepend=goal[:1] - 1))
    for start, end in zip(starts, [*starts[1:], len(goal)], strict=True):
        axes.axvspan(
            start - 0.5, end - 0.5, color=_hex(int(goal[start]), colours), alpha=0.45, lw=0
        )
        axes.axvline(start - 0.5, color="0.2", linewidth=0.8)


def goal_palette(
    goal: np.ndarray, colours: Sequence[tuple[int, int, int]] | None = None
) -> np.ndarray:
    """RGB uint8 [..., 3] of sub-goals int [...]; unknown ones (-1) are white."""
    palette = PALETTE if colours is None else np.asarray(colours, np.uint8)
    rgb = palette[np.asarray(goal).astype(int) % len(palette)]
    return np.where((np.asarray(goal) < 0)[..., None], np.uint8(255), rgb)


def _hex(goal: int, colours: Any) -> str:
    red, green, blue = goal_palette(np.asarray(goal), colours).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _cycle(count: int) -> list[str]:
    return [f"C{i % 10}" for i in range(count)]


def _log_floor(curves: Mapping[str, Curve], episodes: int | None) -> float:
    if episodes:
        return 1.0 / episodes
    values = np.concatenate([np.asarray(y, dtype=float).reshape(-1) for _, y in curves.values()])
    return float(min(values[values > 0], default=1e-3))


def _highest(curves: Mapping[str, Curve]) -> float:
    return max((float(np.max(np.asarray(y))) for _, y in curves.values()), default=1.0)


def _finish(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
