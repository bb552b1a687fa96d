"""Token rows: what a symmetric view changes, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.pinpad.expert import generate
from internal_rl.data import padded_batch, symmetric_view
from internal_rl.packing import unpacked
from tests.internal_rl.small import SMOKE, assert_trees_equal, changed, world

KEY = jax.random.key(3)
ROWS = 64


@pytest.fixture(scope="module")
def batches():
    @jax.jit
    def run(key):
        with_views, _ = padded_batch(key, world(), ROWS, 0.0, "uniform", symmetric_views=True)
        without, _ = padded_batch(key, world(), ROWS, 0.0, "uniform")
        return with_views, without

    return jax.device_get(run(KEY))


def test_views_change_nothing_else(batches):
    with_views, without = batches
    assert without.view is None
    assert_trees_equal(with_views.replace(view=None), without)


def test_one_trajectory_in_eight_is_seen_as_it_is(batches):
    with_views, _ = batches
    same = (with_views.view == with_views.obs).all(axis=(1, 2))
    # The chance of fewer than 1 or more than 20 of 64 is below 1e-3.
    assert 1 <= same.sum() <= 20
    assert with_views.view.shape == with_views.obs.shape
    np.testing.assert_array_equal(with_views.view.sum(-1), with_views.obs.sum(-1))


def test_every_token_of_a_trajectory_moves_alike():
    """Against the observation of a grid that was moved before anything was observed."""
    config = changed(SMOKE, env={"observation": "onehot"})
    place, size = world(config), SMOKE.env.grid_size

    @jax.jit
    def run(key):
        data, _ = generate(
            key, place.env, place.tasks, 8, place.horizon, epsilon=0.0, tie_breaking="uniform"
        )
        view = symmetric_view(
            place, data, unpacked(data.length, place.horizon), jnp.arange(8, dtype=jnp.int32)
        )
        return data, view

    data, view = jax.device_get(run(KEY))
    # Elements in the order of the docstring: bit 0 rows, bit 1 columns, bit 2 transpose.
    for element in range(8):
        table = np.arange(size**2).reshape(size, size)
        if element & 1:
            table = table[::-1]
        if element & 2:
            table = table[:, ::-1]
        if element & 4:
            table = table.T
        # A cell of the old grid lands where `table` holds its number.
        lands = np.argsort(table.ravel())
        for t in range(int(data.length[element])):
            expected = place.env.observe(
                jnp.asarray(lands[data.objects[element]], jnp.int32),
                jnp.asarray(lands[data.walls[element]], jnp.int32),
                jnp.asarray(lands[data.agent[element, t]], jnp.int32),
            )
            np.testing.assert_array_equal(view[element, t], expected)
