"""Pictures of texts, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.tokens.language import Language
from envs.tokens.render import FLOOR, PROMPT, WRONG, render_text
from envs.tokens.tables import CHUNKS, FOUR
from envs.tokens.world import TokenWorld

WORLD = TokenWorld(Language(CHUNKS[:4]), FOUR, horizon=23)


def state_after(task, written):
    state, _ = WORLD.reset((jnp.array([4, 8, 1, 7], jnp.int32), jnp.int32(FOUR.index(task))))
    for action in (12, 12, 12, *written):
        state, _ = WORLD.step(jax.random.key(0), state, jnp.int32(action))
    return jax.device_get(state)


def corners(image):
    """Colour of each tile's background."""
    return [[tuple(image[r * 20 + 2, c * 20 + 2].tolist()) for c in range(24)] for r in range(2)]


def test_tokens_have_the_colour_of_their_chunk():
    # "skip" is 0 1 3, "back" is 2 1 0: the first with a stutter and a pause, the second with a mistake at its end.
    image = WORLD.draw(state_after("3102", (4, 4, 8, 12, 7, 1, 8, 7)))
    assert image.shape == (40, 480, 3)
    assert image.dtype == np.uint8
    above, below = corners(image)
    skip, back = WORLD.goal_colour(3), WORLD.goal_colour(1)
    assert below[:4] == [PROMPT] * 4
    assert below[4:12] == [skip, skip, skip, PROMPT, skip, back, back, WRONG]
    assert below[12:] == [FLOOR] * 12
    assert above[0] == skip
    assert above[1] != back
    assert above[4:] == [FLOOR] * 20


def test_every_letter_looks_different():
    language = Language(CHUNKS, symbols=26)
    world = TokenWorld(language, ("01",), horizon=13)
    seen = set()
    for symbol in range(26):
        others = [(symbol + i) % 26 for i in range(4)]
        state, _ = world.reset((jnp.array(others, jnp.int32), jnp.int32(0)))
        seen.add(world.draw(jax.device_get(state))[20:, :20].tobytes())
    assert len(seen) == 26


def test_chunks_have_different_colours():
    assert len({WORLD.goal_colour(i) for i in range(10)}) == 10


def test_small_cells_are_refused():
    with pytest.raises(ValueError, match="cell_pixels=7: allowed is 8 or more"):
        render_text(WORLD, state_after("0202", ()), cell_pixels=7)
