"""Tiles of pairs of states give what all pairs at once give, and are shared between episodes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.credit import estimators, hindsight, state_pairs
from agents.credit.state_pairs import (
    contributions_of_pairs,
    make_tiles,
    value_and_grad_of_pairs,
)
from tests.agents.credit.paths import trajectory
from tests.agents.credit.test_distinct import calls_of, counted

PARAMS = hindsight.hypernetwork_init(jax.random.key(0), 4, 4, 3, width=8)


def stacked(*trajectories):
    return jax.tree.map(lambda *x: jnp.stack(x), *trajectories)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12))
def test_every_pair_is_in_one_tile(steps, block, at_once):
    tiles = make_tiles(steps, block, at_once)
    assert tiles.row.shape == tiles.column.shape == tiles.later.shape[:2]
    assert tiles.row.shape[1] <= at_once
    found = np.zeros((steps, steps), int)
    for row, column, later in zip(
        tiles.row.ravel(), tiles.column.ravel(), tiles.later.reshape(-1, block, block), strict=True
    ):
        for earlier, after in zip(*np.nonzero(later), strict=True):
            found[row * block + earlier, column * block + after] += 1
    np.testing.assert_array_equal(found, np.triu(np.ones((steps, steps)), 1))


@pytest.mark.parametrize("loss", [hindsight.classification_loss, hindsight.contrastive_loss])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("block", "at_once"), [(3, 2), (3, 256), (8, 4)])
def test_loss_and_gradient_are_those_of_all_pairs(loss, mask, block, at_once):
    """One episode ends early, and one at once: it has no pair."""
    batch = stacked(
        trajectory([1.0, 0.0, 0.0, 2.0, 0.0, -1.0, 0.0], steps=7, seed=0),
        trajectory(np.zeros(7), steps=7, seed=1, done_at=4),
        trajectory(np.ones(7), steps=7, seed=2, done_at=1),
    )

    def of_all(params):
        def one(t):
            outcomes = hindsight.state_outcomes(t)
            counts = hindsight.pair_counts(t, outcomes, mask)
            x = hindsight.hypernetwork(params, t.obs[:-1], outcomes.vectors, t.log_policy)
            return loss(x, t.log_policy, hindsight.pair_weights(t, counts))

        return jnp.mean(jax.vmap(one)(batch))

    expected = jax.jit(jax.value_and_grad(of_all))(PARAMS)
    of_tiles = partial(value_and_grad_of_pairs, loss, block=block, at_once=at_once)
    found = jax.jit(lambda params: of_tiles(params, batch, mask))(PARAMS)
    assert float(found[0]) > 0.1
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("block", "at_once"), [(3, 2), (3, 256), (8, 4)])
def test_contributions_are_those_of_all_pairs(block, at_once):
    """Rewards after the end of an episode count for nothing."""
    batch = stacked(
        trajectory([1.0, 0.0, 2.0, -1.0, 0.0, 3.0, 1.0], steps=7, seed=0),
        trajectory([1.0, 0.0, 2.0, -1.0, 5.0, 3.0, 1.0], steps=7, seed=1, done_at=5),
    )

    def of_all(t):
        x = hindsight.hypernetwork(PARAMS, t.obs[:-1], t.obs[:-1], t.log_policy)
        w = hindsight.classification_ratio(x, t.log_policy) - 1.0
        return estimators.contributions(t, w, jnp.eye(7))

    def of_tiles(t):
        ratio = hindsight.classification_ratio
        return contributions_of_pairs(ratio, PARAMS, t, block=block, at_once=at_once)

    found = jax.jit(jax.vmap(of_tiles))(batch)
    np.testing.assert_allclose(found, jax.jit(jax.vmap(of_all))(batch), rtol=1e-4, atol=1e-5)
    assert np.abs(found[:, :4]).max(axis=(1, 2)).min() > 0.1
    assert np.abs(found[:, -1]).max() == 0.0


def test_coefficients_of_pairs_that_do_not_count_may_be_infinite():
    t = trajectory([1.0, 0.0, 2.0, 0.0, 1.0])
    shown = t.obs.at[:, 0].set(jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    t = t.replace(obs=shown, log_policy=shown[:-1, :3])

    def ratio(x, rows):
        """Infinite for the last state, which no other comes after."""
        return jnp.where(rows[:, None] == 4.0, jnp.inf, 1.0 + 0 * x)

    found = contributions_of_pairs(ratio, PARAMS, t, block=3, at_once=2)
    np.testing.assert_array_equal(found, np.zeros((5, 3)))


def test_an_episode_of_one_step_has_no_pair():
    batch = stacked(trajectory([1.0], steps=1))
    value, gradient = value_and_grad_of_pairs(hindsight.classification_loss, PARAMS, batch)
    assert float(value) == 0.0
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient)) == 0.0
    one = jax.tree.map(lambda x: x[0], batch)
    found = contributions_of_pairs(hindsight.classification_ratio, PARAMS, one)
    np.testing.assert_array_equal(found, np.zeros((1, 3)))


def test_episodes_share_tiles_until_they_differ(monkeypatch):
    """Two episodes show the same, a third does until its last step, a fourth shows its own: of three blocks
    the last one makes a difference to the third, in three tiles of six."""
    one, other = (trajectory(np.ones(9), steps=9, seed=seed) for seed in (0, 1))
    late = one.replace(obs=one.obs.at[8].add(1.0))
    batch = stacked(one, one.replace(action=other.action), late, other)
    monkeypatch.setattr(state_pairs, "hypernetwork", counted(hindsight.hypernetwork))
    fit = partial(value_and_grad_of_pairs, hindsight.classification_loss, block=3, at_once=1)
    assert calls_of(jax.jit(fit), PARAMS, batch)[1] == 3 * 2 + 3 * 3

    def of_tiles(t):
        ratio = hindsight.classification_ratio
        return contributions_of_pairs(ratio, PARAMS, t, block=3, at_once=1)

    assert calls_of(jax.jit(jax.vmap(of_tiles)), batch)[1] == 3 * 2 + 3 * 3
