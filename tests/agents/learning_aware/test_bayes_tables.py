"""The exact predictor of games among random tables, against enumeration and integrals done by hand."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import predictive
from agents.learning_aware.bayes_tables import bayes_tables, best_response_value
from agents.learning_aware.predictive import Games, PredictiveSettings
from envs.social.matrix import IteratedMatrixGame


def test_first_predictions_are_laplaces_rule():
    """Two rounds of CC: the start is seen once, CC once; uniform priors give (n + 1) / (N + 2)."""
    game = IteratedMatrixGame(episode_length=3)
    model = bayes_tables(game)
    carry = model.init_carry(1)
    one = lambda x: jnp.array([x])  # noqa: E731
    for obs, own_c, other_c in ((0, 1 / 2, 1 / 2), (1, 1 / 2, 1 / 2), (1, 2 / 3, 2 / 3)):
        carry, _ = model.observe((), carry, one(obs))
        carry, logits = model.receive((), carry, one(0.0))
        np.testing.assert_allclose(jax.nn.softmax(logits)[0, 0], own_c, rtol=1e-6)
        carry, logits = model.act((), carry, one(0))
        chance = jax.nn.softmax(logits)[0]
        np.testing.assert_allclose(chance[1], other_c, rtol=1e-6)  # CC, given own C
        np.testing.assert_allclose(chance[1:3].sum(), 1, rtol=1e-6)


def test_the_other_is_counted_in_its_own_view():
    """After CD (own first) and the other's C, the other has cooperated once in its own DC."""
    model = bayes_tables(IteratedMatrixGame(episode_length=3))
    carry = model.init_carry(1)
    for obs, action in ((0, 0), (2, 1)):
        carry, _ = model.observe((), carry, jnp.array([obs]))
        carry, _ = model.act((), carry, jnp.array([action]))
    carry, reward = model.observe((), carry, jnp.array([3]))  # DC: the other cooperated
    assert float(reward[0]) == 2.0
    np.testing.assert_array_equal(carry.other[0, 3], [1, 0])
    np.testing.assert_array_equal(carry.other[0, 2], [0, 0])
    np.testing.assert_array_equal(carry.own[0, 2], [0, 1])


def test_loss_is_that_of_the_integral_over_tables():
    """Two rounds: P(game) = ∏ of Beta integrals, by brute force over all games."""
    game = IteratedMatrixGame(episode_length=2)
    model = bayes_tables(game)
    total = 0.0
    for a0, b0, a1, b1 in itertools.product(range(2), repeat=4):
        first, last = 1 + 2 * a0 + b0, 1 + 2 * a1 + b1
        games = Games(
            obs=jnp.array([[0, first, last]]),
            reward=jnp.array([[0.0, *game.table[0][[first - 1, last - 1]]]], jnp.float32),
            action=jnp.array([[a0, a1]]),
        )
        nats = 2 * float(model.loss((), games))
        # Start and the second round are different observations, so each action has probability 1/2.
        np.testing.assert_allclose(nats, 4 * np.log(2), rtol=1e-5)
        total += np.exp(-nats)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_best_responses_by_hand():
    game = IteratedMatrixGame(episode_length=10)
    tables = jnp.array(
        [
            [1.0, 1.0, 1.0, 1.0, 1.0],  # always C: defect, 2 a round
            [0.0, 0.0, 0.0, 0.0, 0.0],  # always D: 0
            [1.0, 1.0, 0.0, 1.0, 0.0],  # tit for tat: C until the last round, then D
        ]
    )
    np.testing.assert_allclose(best_response_value(tables, game), [2.0, 0.0, 1.1], atol=1e-6)


def test_the_specs_reference_value():
    """Exact best response to uniformly random tables at T = 100: 1.047 a round."""
    tables = jax.nn.sigmoid(predictive.tabular_logits(jax.random.key(0), 20_000, 5))
    value = jax.jit(lambda t: best_response_value(t, IteratedMatrixGame(episode_length=100)))(
        tables
    ).mean()
    assert float(value) == pytest.approx(1.047, abs=0.006)


def test_exact_agents_play_the_papers_first_phase():
    """The spec's 1.0 ± 0.05 against tables at T = 100 with β = 100; with β = 0.01 hardly better than a table (0.5).

    Over 12 seeds of 512 games with 4 rollouts of 4 rounds: 1.012, s.d. 0.024, which is the luck of the tables.
    """
    game = IteratedMatrixGame(episode_length=100)
    model = bayes_tables(game)

    def reward(beta):
        # β is traced, so that both values share one program.
        cfg = replace(PredictiveSettings(rollouts=4, depth=4), beta=beta)
        players = (
            predictive.learning_player(model, (), game, cfg, 512),
            predictive.tabular_player(jax.random.key(1), game, 512),
        )
        return predictive.play(jax.random.key(0), game, players, 512).reward[0, :, 1:].mean()

    found = jax.jit(reward)
    assert float(found(100.0)) == pytest.approx(1.0, abs=0.05)
    assert float(found(0.01)) < 0.65
