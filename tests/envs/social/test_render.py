import imageio.v3 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.social.cleanup import APPLE, DIRT, CleanUp, CleanUpState
from envs.social.render import (
    APPLE_COLOUR,
    DIRT_COLOUR,
    FROZEN,
    ORCHARD,
    PLAYERS,
    RIVER,
    episode_gif,
    render_state,
)

GAME = CleanUp()


def state():
    objects = jnp.zeros(20, jnp.int32).at[4].set(APPLE).at[11].set(DIRT)
    return CleanUpState(jnp.array([[1, 1], [3, 2]]), jnp.array([0, 4]), objects)


def has(image, colour):
    return bool((image == np.array(colour, np.uint8)).all(-1).any())


def test_every_thing_is_in_its_cell():
    image = render_state(GAME, state(), cell_pixels=32)
    assert image.shape == (160, 128, 3)
    cell = lambda row, column: image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]  # noqa: E731
    assert has(cell(1, 0), APPLE_COLOUR)
    assert has(cell(2, 3), DIRT_COLOUR)
    assert has(cell(1, 1), PLAYERS[0])
    assert has(cell(3, 2), PLAYERS[1])
    assert has(cell(3, 2), FROZEN)
    assert has(cell(0, 0), ORCHARD)
    assert has(cell(0, 3), RIVER)
    assert not has(cell(1, 1), FROZEN)
    for row in range(5):
        for column in range(4):
            assert has(cell(row, column), PLAYERS[0]) == ((row, column) == (1, 1))
            assert has(cell(row, column), APPLE_COLOUR) == ((row, column) == (1, 0))


def test_two_players_in_one_cell_are_both_seen():
    image = render_state(GAME, state().replace(position=jnp.array([[2, 2], [2, 2]])))
    assert has(image, PLAYERS[0])
    assert has(image, PLAYERS[1])


def test_an_episode_as_gif(tmp_path):
    first, _ = GAME.reset(jax.random.key(0))
    states = [first, state(), state()]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    assert episode_gif(tmp_path / "a.gif", GAME, states, cell_pixels=16) == 3
    assert episode_gif(tmp_path / "b.gif", GAME, stacked, cell_pixels=16) == 3
    frames = imageio.imread(tmp_path / "a.gif", index=None)
    assert frames.shape[1:] == (80, 64, 3)
    np.testing.assert_array_equal(frames, imageio.imread(tmp_path / "b.gif", index=None))


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="cell_pixels is 4; allowed: at least 12"):
        render_state(GAME, state(), cell_pixels=4)
    with pytest.raises(ValueError, match=r"state.objects has shape \[20\]; allowed: \[12\]"):
        render_state(CleanUp(rows=3), state())
    with pytest.raises(ValueError, match="states is empty"):
        episode_gif(tmp_path / "a.gif", GAME, [])
