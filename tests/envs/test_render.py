"""Pictures and GIFs."""

import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import pytest

from envs.pinpad import render


def test_state_picture():
    image = render.render_state([0, 5], [10], 15, grid_size=4, cell_pixels=16)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    corner = lambda cell: image[cell // 4 * 16 + 14, cell % 4 * 16 + 14].tolist()  # noqa: E731
    assert corner(0) == render.PALETTE[0].tolist()
    assert corner(5) == render.PALETTE[1].tolist()
    assert corner(10) == list(render.WALL)
    assert corner(3) == list(render.FLOOR)
    assert image[3 * 16 + 8, 3 * 16 + 8].tolist() == list(render.AGENT)


def test_digits_are_optional():
    plain = render.render_state([5], [], 0, 4, digits=False)
    assert (render.render_state([5], [], 0, 4) != plain).any()
    inside = plain[28 + 2 : 56 - 1, 28 + 2 : 56 - 1].reshape(-1, 3)
    assert (inside == render.PALETTE[0]).all()


@pytest.mark.parametrize("vectors", [True, False], ids=["codes", "indices"])
def test_gif_has_one_frame_per_state(tmp_path, vectors):
    steps = 5
    code = np.linspace(-2, 2, 3 * steps).reshape(steps, 3) if vectors else np.arange(steps) // 2
    frames = render.episode_gif(
        tmp_path / "episode.gif",
        objects=[0, 5],
        walls=[10],
        agent=[15, 14, 13, 9, 5, 4],
        grid_size=4,
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
    render.episode_gif(path, [0], [], [3, 3, 3, 3], 2, beta=[0, 0, 0], code=[0, 0, 0])
    assert len(imageio.imread(path)) == 4


def test_lengths_must_fit(tmp_path):
    with pytest.raises(ValueError, match="beta has length 2: agent of length 4 has 3"):
        render.episode_gif(tmp_path / "x.gif", [0], [], [3, 3, 3, 3], 2, [0, 0], [0, 0, 0])
