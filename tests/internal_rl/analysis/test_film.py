"""GIFs of episodes."""

import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import pytest

from envs.pinpad.render import render_state
from internal_rl.analysis.film import episode_gif


def pictures(objects, walls, agent, grid_size):
    """Of a grid in which the agent walks through these cells."""
    return np.stack([render_state(objects, walls, cell, grid_size) for cell in agent])


@pytest.mark.parametrize("vectors", [True, False], ids=["codes", "indices"])
def test_gif_has_one_frame_per_state(tmp_path, vectors):
    steps = 5
    code = np.linspace(-2, 2, 3 * steps).reshape(steps, 3) if vectors else np.arange(steps) // 2
    frames = episode_gif(
        tmp_path / "episode.gif",
        pictures(objects=[0, 5], walls=[10], agent=[15, 14, 13, 9, 5, 4], grid_size=4),
        beta=[1, 0, 0.2, 0.9, 0],
        code=code,
        goal=None if vectors else [1, 1, 1, 1, 0],
    )
    images = imageio.imread(tmp_path / "episode.gif")
    assert len(images) == frames == steps + 1
    assert (images[0] != images[-1]).any()
    assert plt.get_fignums() == []  # no figure is left open


def test_the_agent_standing_still_keeps_its_frames(tmp_path):
    """GIF writers merge equal frames; the growing trace keeps them apart."""
    path = tmp_path / "still.gif"
    episode_gif(path, pictures([0], [], [3, 3, 3, 3], 2), beta=[0, 0, 0], code=[0, 0, 0])
    assert len(imageio.imread(path)) == 4


def test_lengths_must_fit(tmp_path):
    with pytest.raises(ValueError, match="beta has length 2: 4 pictures make 3 steps"):
        episode_gif(tmp_path / "x.gif", pictures([0], [], [3, 3, 3, 3], 2), [0, 0], [0, 0, 0])


def test_goals_have_the_colours_of_the_world(tmp_path):
    """Unknown goals are white, known ones as the world draws them."""
    path, colour = tmp_path / "goals.gif", (10, 200, 30)
    frames = pictures([0], [], [3, 3, 3], 2)
    shown = []
    for goal in ([-1, -1], [0, 0]):
        episode_gif(path, frames, beta=[0, 0], code=[0, 0], goal=goal, colours=[colour])
        near = np.abs(imageio.imread(path)[-1][..., :3].astype(int) - colour).max(-1) <= 12
        shown.append(int(near.sum()))
    assert shown[0] == 0
    assert shown[1] > 100
