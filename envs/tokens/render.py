"""Pictures of texts: what has been written in the colours of the task's chunks, and the task above it."""

from typing import Any

import numpy as np
from matplotlib import colormaps

from envs.tokens.writing import Writing

FLOOR, PROMPT, WRONG, INK, PAPER = (
    *((250, 250, 250), (215, 215, 215), (20, 20, 25)),
    *((70, 70, 75), (255, 255, 255)),
)
COLOURS = (np.array(colormaps["tab10"].colors) * 255).astype(np.uint8)  # pyright: ignore

# 3×5 pixel letters a to z and the pause, one string of rows each.
_GLYPHS = (
    *("010101111101101", "110101110101110", "011100100100011", "110101101101110"),
    *("111100110100111", "111100110100100", "011100101101011", "101101111101101"),
    *("111010010010111", "001001001101010", "101101110101101", "100100100100111"),
    *("101111111101101", "110101101101101", "010101101101010", "110101110100100"),
    *("010101101110011", "110101110101101", "011100010001110", "111010010010010"),
    *("101101101101111", "101101101101010", "101101111111101", "101101010101101"),
    *("101101010010010", "111001010100111"),
)
_PAUSE = "000000010000000"


def colour(chunk: int) -> tuple[int, int, int]:
    """RGB of a chunk."""
    red, green, blue = COLOURS[chunk % len(COLOURS)].tolist()
    return red, green, blue


def render_text(world: Writing, state: Any, cell_pixels: int = 20) -> np.ndarray:
    """Picture of one state (`TokenState` without batch axes, NumPy arrays).

    Upper row: the task's chunks, those completed in full colour. Lower row: the prompt grey, then the tokens written,
    each in the colour of the chunk that it belongs to; a pause grey, what is wrong and all after it black.

    Args:
        cell_pixels: width of a token, at least 8.

    Returns:
        uint8 [2 * cell_pixels, (T + 1) * cell_pixels, 3].
    """
    if cell_pixels < 8:
        raise ValueError(f"cell_pixels={cell_pixels}: allowed is 8 or more")
    image = np.full((2 * cell_pixels, (world.horizon + 1) * cell_pixels, 3), FLOOR, np.uint8)

    def tile(row: int, column: int) -> np.ndarray:
        top, left = row * cell_pixels, column * cell_pixels
        return image[top + 1 : top + cell_pixels, left + 1 : left + cell_pixels]

    for i, chunk in enumerate(world.sequences[int(state.task)]):
        full = np.array(colour(int(chunk)))
        tile(0, i)[:] = full if i < int(state.progress) else (full + 3 * np.array(PAPER)) // 4
    tokens = np.asarray(state.tokens)[: int(state.time) + 1]
    for i, (token, background) in enumerate(zip(tokens, _backgrounds(world, state), strict=True)):
        tile(1, i)[:] = background
        ink = INK if background == PROMPT else PAPER
        _write(tile(1, i), _PAUSE if token == world.language.pause else _GLYPHS[token], ink)
    return image


def _backgrounds(world: Writing, state: Any) -> list[tuple[int, int, int]]:
    """Colour of every token so far: the text is read again from its start."""
    grammar, task = world.language.grammar, world.sequences[int(state.task)]
    prompt, found = np.asarray(state.prompt).tolist(), []
    node, progress, wrong = 0, 0, False
    for i, token in enumerate(np.asarray(state.tokens)[: int(state.time) + 1].tolist()):
        if i < len(prompt) or (token == world.language.pause and not wrong):
            found.append(PROMPT)
            continue
        chunk = int(task[min(progress, len(task) - 1)])
        wrong |= token not in prompt or progress == len(task)
        wrong = wrong or not grammar.allowed[chunk, node, prompt.index(token)]
        found.append(WRONG if wrong else colour(chunk))
        if not wrong:
            progress += int(grammar.complete[node, prompt.index(token)])
            node = int(grammar.child[node, prompt.index(token)])
    return found


def _write(tile: np.ndarray, glyph: str, ink: tuple[int, int, int]) -> None:
    """In the middle of the tile."""
    scale = max(1, tile.shape[0] // 8)
    mask = np.kron(np.array(list(glyph), int).reshape(5, 3), np.ones((scale, scale), int)) > 0
    top, left = (tile.shape[0] - 5 * scale) // 2, (tile.shape[1] - 3 * scale) // 2
    tile[top : top + 5 * scale, left : left + 3 * scale][mask] = ink
