"""What the encoder reads: which frames, in which grid, and that nothing else of a batch depends on it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.pinpad.expert import generate
from internal_rl.config import DiscoverConfig
from internal_rl.demonstrations.contract import discovery_batch, padded_batch
from internal_rl.demonstrations.views import (
    encoder_view,
    stretch,
    stretched_starts,
    symmetric_observations,
)
from tests.internal_rl.small import SMOKE, assert_trees_equal, changed, world

KEY = jax.random.key(3)
ROWS = 64
SYMMETRIC = DiscoverConfig(encoder_view="symmetric")
STRETCHED = DiscoverConfig(encoder_view="same", encoder_stretch=2)


@pytest.fixture(scope="module")
def seen():
    """Trajectories and both views of them."""
    place = world()

    @jax.jit
    def run(key):
        data, _ = generate(
            key, place.env, place.tasks, ROWS, place.horizon, epsilon=0.0, tie_breaking="uniform"
        )
        every = jnp.broadcast_to(jnp.arange(place.horizon + 1), (ROWS, place.horizon + 1))
        plain = symmetric_observations(place, data, every, jnp.zeros((ROWS,), jnp.int32))
        views = [encoder_view(key, place, data, cfg) for cfg in (SYMMETRIC, STRETCHED)]
        return data, plain, *views

    return jax.device_get(run(KEY))


def test_views_change_nothing_else():
    @jax.jit
    def run(key):
        cfg = dataclasses.replace(SYMMETRIC, encoder_stretch=2)
        with_view = discovery_batch(key, world(), ROWS, cfg, "uniform")
        without = discovery_batch(key, world(), ROWS, DiscoverConfig(), "uniform")
        return with_view, without, padded_batch(key, world(), ROWS, 0.0, "uniform")[0]

    with_view, without, padded = jax.device_get(run(KEY))
    assert without.view is None
    assert_trees_equal(with_view.replace(view=None), without)
    assert_trees_equal(without, padded)


def test_a_symmetric_view_keeps_time_and_adds_the_last_observation(seen):
    data, plain, view, _ = seen
    steps = np.arange(world().horizon + 1)
    np.testing.assert_array_equal(view.valid, steps <= data.length[:, None])
    np.testing.assert_array_equal(view.token, np.broadcast_to(steps[:-1], view.token.shape))
    assert view.obs.shape == plain.shape
    # One trajectory in eight is seen as it is; the chance of fewer than 1 or more than 20 of 64 is below 1e-3.
    same = (view.obs == plain).all(axis=(1, 2))
    assert 1 <= same.sum() <= 20


@pytest.mark.parametrize("stretch", [0, 2])
def test_a_view_without_the_last_observation(seen, stretch):
    data = jax.tree.map(jnp.asarray, seen[0])
    cfg = DiscoverConfig(encoder_view="symmetric", encoder_stretch=stretch, encoder_end=False)
    view = jax.device_get(jax.jit(lambda key: encoder_view(key, world(), data, cfg))(KEY))
    last = view.valid.sum(axis=1) - 1
    for row in range(ROWS):
        frame = view.obs[row, last[row]]
        np.testing.assert_array_equal(frame, view.obs[row, view.token[row, data.length[row] - 1]])
    if not stretch:
        np.testing.assert_array_equal(last + 1, data.length)


def test_a_stretched_view_repeats_every_observation_in_order(seen):
    data, plain, _, view = seen
    assert view.obs.shape[1] == 2 * world().horizon
    assert view.valid.all()
    for row in range(ROWS):
        length = int(data.length[row])
        start = view.token[row, :length]
        assert start[0] == 0
        assert (np.diff(start) >= 1).all()
        ends = [*start[1:], None]
        for t in range(length - 1):
            for token in range(start[t], ends[t]):
                np.testing.assert_array_equal(view.obs[row, token], plain[row, t])
        np.testing.assert_array_equal(view.obs[row, start[-1]], plain[row, length - 1])
        np.testing.assert_array_equal(view.obs[row, -1], plain[row, length])


@partial(jax.jit, static_argnums=2)
def stretched(seed, length, tokens):
    starts = stretched_starts(jax.random.key(seed), length[None, None], 9, tokens)
    return stretch(starts, tokens)


# Every number of tokens is a program of its own.
@given(seed=st.integers(0, 2**31), length=st.integers(1, 9), tokens=st.sampled_from((1, 5, 9, 20)))
def test_stretching_leaves_no_frame_out_and_no_token_empty(seed, length, tokens):
    length = min(length, tokens)
    frame, token = jax.device_get(stretched(jnp.uint32(seed), jnp.int32(length), tokens))
    assert (np.diff(frame[0]) >= 0).all()
    np.testing.assert_array_equal(np.unique(frame[0]), np.arange(length))
    np.testing.assert_array_equal(frame[0][token[0][:length]], np.arange(length))
    np.testing.assert_array_equal(token[0][:length], np.searchsorted(frame[0], np.arange(length)))


def test_how_long_a_frame_stays_says_little_about_how_long_a_leg_is():
    """Legs of one and of three frames among ten: the longer one has fewer tokens in about one case of nine."""
    starts = stretched_starts(KEY, jnp.full((4000, 1), 10), 10, 100)
    short, long = starts[:, 1] - starts[:, 0], starts[:, 5] - starts[:, 2]
    # P(Exp(1) > Gamma(3, 1)) = 1/8; the 10 tokens that every frame has for sure make it a little less.
    assert 0.08 < float((short > long).mean()) < 0.125


def test_every_token_of_a_trajectory_moves_alike():
    """Against the observation of a grid that was moved before anything was observed."""
    config = changed(SMOKE, env={"observation": "onehot"})
    place, size = world(config), SMOKE.env.grid_size

    @jax.jit
    def run(key):
        data, _ = generate(
            key, place.env, place.tasks, 8, place.horizon, epsilon=0.0, tie_breaking="uniform"
        )
        time = jnp.broadcast_to(jnp.arange(place.horizon + 1), (8, place.horizon + 1))
        return data, symmetric_observations(place, data, time, jnp.arange(8, dtype=jnp.int32))

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
        for t in range(int(data.length[element]) + 1):
            expected = place.env.observe(
                jnp.asarray(lands[data.objects[element]], jnp.int32),
                jnp.asarray(lands[data.walls[element]], jnp.int32),
                jnp.asarray(lands[data.agent[element, t]], jnp.int32),
            )
            np.testing.assert_array_equal(view[element, t], expected)
