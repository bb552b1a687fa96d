"""Pictures."""

import numpy as np

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
