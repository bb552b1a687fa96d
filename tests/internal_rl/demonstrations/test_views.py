"""What the encoder reads: which frames, in which grid, and that nothing else of a batch depends on it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.pinpad.world import symmetric_observations
from internal_rl.config import DiscoverConfig
from internal_rl.demonstrations.pinpad import PinpadDemonstrations
from internal_rl.demonstrations.views import (
    discovery_batch,
    stretch,
    stretched_starts,
    with_view,
)
from tests.internal_rl.small import assert_trees_equal, world

KEY = jax.random.key(3)
ROWS = 64
SYMMETRIC = DiscoverConfig(encoder_view="symmetric")
STRETCHED = DiscoverConfig(encoder_view="same", encoder_stretch=2)


def padded(key):
    return PinpadDemonstrations(world()).rows((), key, ROWS, clean=True)[0]


@pytest.fixture(scope="module")
def seen():
    """Trajectories, their observations, and both views of them."""
    place = world()

    @jax.jit
    def run(key):
        batch = padded(key)
        data = batch.source
        every = jnp.broadcast_to(jnp.arange(place.horizon + 1), (ROWS, place.horizon + 1))
        plain = symmetric_observations(place.env, data, every, jnp.zeros((ROWS,), jnp.int32))
        views = [with_view(key, place, batch, cfg).view for cfg in (SYMMETRIC, STRETCHED)]
        return data, plain, *views

    return jax.device_get(run(KEY))


def test_views_change_nothing_else():
    @jax.jit
    def run(key):
        place, source = world(), PinpadDemonstrations(world())
        cfg = dataclasses.replace(SYMMETRIC, encoder_stretch=2)
        viewed = discovery_batch(key, place, source, (), ROWS, cfg)
        without = discovery_batch(key, place, source, (), ROWS, DiscoverConfig())
        return viewed, without, padded(key)

    viewed, without, rows = jax.device_get(run(KEY))
    assert viewed.view is not None
    assert without.view is None
    assert_trees_equal(viewed.replace(view=None), without)
    assert_trees_equal(without, rows)


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
    data = seen[0]
    cfg = DiscoverConfig(encoder_view="symmetric", encoder_stretch=stretch, encoder_end=False)
    run = jax.jit(lambda key: with_view(key, world(), padded(key), cfg).view)
    view = jax.device_get(run(KEY))
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
