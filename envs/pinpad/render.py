"""Pictures of gridworld-pinpad, and GIFs of episodes with the switching gate and the code below."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

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
"""RGB of colours 0..9."""

FLOOR, GRID, WALL, AGENT = (250, 250, 250), (215, 215, 215), (70, 70, 75), (20, 20, 25)

# 3×5 pixel digits, one string of rows each.
_DIGITS = (
    *("111101101101111", "010110010010111", "111001111100111", "111001111001111"),
    *("101101111001001", "111100111001111", "111100111101111", "111001001001001"),
    *("111101111101111", "111101111001111"),
)


def render_state(
    objects: Any, walls: Any, agent: Any, grid_size: int, cell_pixels: int = 28, digits: bool = True
) -> np.ndarray:
    """Picture of one state.

    Args:
        objects, walls, agent: cells, int [O], [W] and [].
        cell_pixels: width of a cell, at least 8.
        digits: write each colour's number into its cell.

    Returns:
        uint8 [G * cell_pixels, G * cell_pixels, 3].
    """
    if cell_pixels < 8:
        raise ValueError(f"cell_pixels={cell_pixels}: allowed is 8 or more")
    image = np.full((grid_size * cell_pixels, grid_size * cell_pixels, 3), FLOOR, np.uint8)
    image[::cell_pixels] = GRID
    image[:, ::cell_pixels] = GRID

    def tile(cell: Any) -> np.ndarray:
        row, column = divmod(int(cell), grid_size)
        top, left = row * cell_pixels, column * cell_pixels
        return image[top + 1 : top + cell_pixels, left + 1 : left + cell_pixels]

    for wall in np.asarray(walls).reshape(-1):
        tile(wall)[:] = WALL
    for colour, cell in enumerate(np.asarray(objects).reshape(-1)):
        tile(cell)[:] = PALETTE[colour % len(PALETTE)]
        if digits:
            _draw_digit(tile(cell), colour % 10)
    _draw_disc(tile(agent))
    return image


def _draw_digit(tile: np.ndarray, digit: int) -> None:
    """In the upper left corner, where the agent's disc does not hide it."""
    glyph = np.array(list(_DIGITS[digit]), int).reshape(5, 3)
    scale = max(1, tile.shape[0] // 14)
    mask = np.kron(glyph, np.ones((scale, scale), int)).astype(bool)
    height, width = mask.shape
    tile[1 : 1 + height, 1 : 1 + width][mask] = (255, 255, 255)


def _draw_disc(tile: np.ndarray) -> None:
    size = tile.shape[0]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.sqrt(x**2 + y**2)
    tile[radius < 0.34 * size] = (255, 255, 255)
    tile[radius < 0.27 * size] = AGENT


def episode_gif(
    path: str | Path,
    objects: Any,
    walls: Any,
    agent: Any,
    grid_size: int,
    beta: Any,
    code: Any,
    goal: Any = None,
    fps: float = 4.0,
) -> int:
    """Write one episode with its switching gate and active code as an animated GIF.

    Args:
        objects, walls: cells, int [O] and [W].
        agent: cell before every action and after the last, int [T + 1].
        beta: gate β_t in [0, 1], float [T]; drawn as a trace that grows from frame to frame.
        code: active code z_t, float [T, n_z], one row of pixels per component; or its index, int
            [T], one colour each.
        goal: colour to be visited next, int [T]; drawn as a strip in the colours of the grid.
        fps: frames per second.

    Returns:
        Number of frames, T + 1.

    Raises:
        ValueError: lengths that do not fit together.
    """
    agent, beta, code = np.asarray(agent), np.asarray(beta, float), np.asarray(code)
    strips = {"z": _code_image(code)}
    if goal is not None:
        strips["goal"] = PALETTE[np.asarray(goal).astype(int) % len(PALETTE)][None]
    steps = len(agent) - 1
    lengths = {"beta": len(beta), "code": len(code)}
    if goal is not None:
        lengths["goal"] = len(np.asarray(goal))
    for name, length in lengths.items():
        if length != steps:
            raise ValueError(
                f"{name} has length {length}: agent of length {len(agent)} has {steps}"
            )
    frames = _draw_frames(objects, walls, agent, grid_size, beta, strips)
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
    objects: Any,
    walls: Any,
    agent: np.ndarray,
    grid_size: int,
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
    first = render_state(objects, walls, agent[0], grid_size)
    picture = axes[0].imshow(first, interpolation="nearest")
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
    for t in range(len(agent)):
        shown = min(t + 1, len(beta))
        picture.set_data(render_state(objects, walls, agent[t], grid_size))
        trace.set_data(np.arange(shown + 1), np.append(beta[:shown], beta[shown - 1 : shown]))
        for bar, strip in zip(bars, strips.values(), strict=True):
            past = np.arange(strip.shape[1])[None, :, None] < shown
            bar.set_data(np.where(past, strip, 255).astype(np.uint8))
        title.set_text(f"step {t} of {len(beta)}")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)
