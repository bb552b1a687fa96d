"""Animated GIFs of episodes: the world's own pictures, with the switching gate and the active code below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from internal_rl.runs.plots import goal_palette


def episode_gif(
    path: str | Path,
    pictures: np.ndarray,
    beta: Any,
    code: Any,
    goal: Any = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
    fps: float = 4.0,
) -> int:
    """Write one episode with its switching gate and active code as an animated GIF.

    Args:
        pictures: of the state before every action and after the last, uint8 [T + 1, H, W, 3].
        beta: gate β_t in [0, 1], float [T]; drawn as a trace that grows from frame to frame.
        code: active code z_t, float [T, n_z], one row of pixels per component; or its index, int
            [T], one colour each.
        goal: true active sub-goal, int [T]; drawn as a strip. -1 is drawn white.
        colours: RGB of every sub-goal; None: a palette of our own.
        fps: frames per second.

    Returns:
        Number of frames, T + 1.

    Raises:
        ValueError: lengths that do not fit together.
    """
    beta, code = np.asarray(beta, float), np.asarray(code)
    strips = {"z": _code_image(code)}
    if goal is not None:
        strips["goal"] = goal_palette(np.asarray(goal), colours)[None]
    steps = len(pictures) - 1
    lengths = {"beta": len(beta), "code": len(code)}
    if goal is not None:
        lengths["goal"] = len(np.asarray(goal))
    for name, length in lengths.items():
        if length != steps:
            raise ValueError(
                f"{name} has length {length}: {len(pictures)} pictures make {steps} steps"
            )
    frames = _draw_frames(pictures, beta, strips)
    imageio.imwrite(Path(path), frames, extension=".gif", duration=1000 / fps, loop=0)
    return len(frames)


def _code_image(code: np.ndarray) -> np.ndarray:
    """uint8 [rows, T, 3]."""
    if code.ndim == 1:
        palette = ListedColormap(colormaps["tab20"].colors)  # pyright: ignore[reportAttributeAccessIssue]
        return palette(code.astype(int) % 20, bytes=True)[None, :, :3]  # pyright: ignore[reportReturnType]
    scaled = np.clip(code.T / 4 + 0.5, 0, 1)  # ±2 standard deviations of the prior
    return colormaps["RdBu_r"](scaled, bytes=True)[..., :3]


def _draw_frames(
    pictures: np.ndarray,
    beta: np.ndarray,
    strips: dict[str, np.ndarray],
) -> np.ndarray:
    """uint8 [T + 1, height, width, 3]. One figure, whose contents are replaced for each frame.

    The figure is made without pyplot, so nothing is left in its registry.
    """
    figure = Figure(figsize=(3.2, 4.2), dpi=80)
    canvas = FigureCanvasAgg(figure)
    rows = 2 + len(strips)
    axes = figure.subplots(rows, 1, gridspec_kw={"height_ratios": [8, 2, *[0.8] * len(strips)]})
    figure.subplots_adjust(left=0.14, right=0.97, top=0.93, bottom=0.04, hspace=0.18)
    picture = axes[0].imshow(pictures[0], interpolation="nearest")
    axes[0].axis("off")
    title = axes[0].set_title("", fontsize=8, pad=3)
    width = max(len(beta), 1)
    (trace,) = axes[1].step([], [], where="post", color="black", linewidth=1.2)
    axes[1].set(xlim=(0, width), ylim=(-0.05, 1.05), yticks=(0, 1), xticks=())
    axes[1].set_ylabel("β", fontsize=8, rotation=0)
    axes[1].tick_params(labelsize=6)
    bars = []
    for axis, (name, strip) in zip(axes[2:], strips.items(), strict=True):
        extent = (0.0, float(width), 0.0, 1.0)
        bars.append(axis.imshow(np.full_like(strip, 255), aspect="auto", extent=extent))
        axis.set(xticks=(), yticks=())
        axis.set_ylabel(name, fontsize=8, rotation=0, labelpad=10, va="center")

    frames = []
    for t in range(len(pictures)):
        shown = min(t + 1, len(beta))
        picture.set_data(pictures[t])
        trace.set_data(np.arange(shown + 1), np.append(beta[:shown], beta[shown - 1 : shown]))
        for bar, strip in zip(bars, strips.values(), strict=True):
            past = np.arange(strip.shape[1])[None, :, None] < shown
            bar.set_data(np.where(past, strip, 255).astype(np.uint8))
        title.set_text(f"step {t} of {len(beta)}")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)
