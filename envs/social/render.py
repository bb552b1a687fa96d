"""Pictures of CleanUp-lite and GIFs of its episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from envs.social.cleanup import APPLE, DIRT, CleanUp, CleanUpState

FLOOR, GRID, ORCHARD, RIVER = (250, 250, 250), (215, 215, 215), (228, 243, 222), (218, 234, 250)
APPLE_COLOUR, DIRT_COLOUR, FROZEN = (210, 50, 50), (120, 90, 60), (90, 200, 240)
PLAYERS = ((30, 90, 200), (240, 140, 30))
"""RGB of player 0 and 1."""


def render_state(game: CleanUp, state: CleanUpState, cell_pixels: int = 32) -> np.ndarray:
    """Picture of one state: orchard green, river blue, apples red discs, dirt brown squares, frozen players ringed.

    Args:
        state: a single one, arrays without batch axes.
        cell_pixels: width of a cell, at least 12. Player 0 stands in the left half of its cell, player 1 in the right.

    Returns:
        uint8 [rows * cell_pixels, columns * cell_pixels, 3].

    Raises:
        ValueError: cells too small, or a state of another grid.
    """
    if cell_pixels < 12:
        raise ValueError(f"cell_pixels is {cell_pixels}; allowed: at least 12")
    objects = np.asarray(state.objects)
    if objects.shape != (game.num_cells,):
        raise ValueError(
            f"state.objects has shape {list(objects.shape)}; allowed: [{game.num_cells}], one state of the game"
        )
    image = np.full((game.rows * cell_pixels, game.columns * cell_pixels, 3), FLOOR, np.uint8)
    image[:, :cell_pixels] = ORCHARD
    image[:, -cell_pixels:] = RIVER
    image[::cell_pixels] = GRID
    image[:, ::cell_pixels] = GRID

    def tile(row: int, column: int) -> np.ndarray:
        top, left = row * cell_pixels, column * cell_pixels
        return image[top + 1 : top + cell_pixels, left + 1 : left + cell_pixels]

    for cell in np.flatnonzero(objects == DIRT):
        edge = cell_pixels // 8
        tile(*divmod(int(cell), game.columns))[edge:-edge, edge:-edge] = DIRT_COLOUR
    for cell in np.flatnonzero(objects == APPLE):
        _disc(tile(*divmod(int(cell), game.columns)), 0.5, 0.5, 0.42, APPLE_COLOUR)
    for player, (row, column) in enumerate(np.asarray(state.position)):
        x = 0.29 + 0.42 * player
        if np.asarray(state.frozen)[player]:
            _disc(tile(int(row), int(column)), x, 0.5, 0.28, FROZEN)
        _disc(tile(int(row), int(column)), x, 0.5, 0.19, PLAYERS[player])
    return image


def episode_gif(
    path: str | Path,
    game: CleanUp,
    states: CleanUpState | Sequence[CleanUpState],
    cell_pixels: int = 32,
    fps: float = 6.0,
) -> int:
    """Write an episode as an animated GIF.

    Args:
        states: a list of states, or one whose arrays have a leading time axis.

    Returns:
        Number of states; in the file, neighbours that look alike share a frame of their summed time.

    Raises:
        ValueError: no states, or what `render_state` refuses.
    """
    if isinstance(states, CleanUpState):
        position, frozen = np.asarray(states.position), np.asarray(states.frozen)
        objects: Any = np.asarray(states.objects)
        frames = [
            CleanUpState(*parts)  # pyright: ignore[reportArgumentType]
            for parts in zip(position, frozen, objects, strict=True)
        ]
    else:
        frames = list(states)
    if not frames:
        raise ValueError("states is empty; allowed: at least one state")
    images = np.stack([render_state(game, state, cell_pixels) for state in frames])
    imageio.imwrite(Path(path), images, extension=".gif", duration=1000 / fps, loop=0)
    return len(frames)


def _disc(
    tile: np.ndarray, x: float, y: float, radius: float, colour: tuple[int, int, int]
) -> None:
    size = tile.shape[0]
    rows, columns = np.mgrid[:size, :size] / (size - 1)
    tile[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = colour
