"""Pictures of gridworld-pinpad."""

from typing import Any

import numpy as np

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
