"""Embedded agents among three players, against explicit universes."""

import itertools

import numpy as np
import pytest

from agents.learning_aware.mixture import (
    EmbeddedAgent,
    PolicyClass,
    decoupled,
    memory_one,
    observe_action,
    observe_percept,
    open_loop,
    play,
    predict_other,
    predict_self,
)
from agents.learning_aware.mixture_players import (
    copies,
    joint_prior,
    others,
    payoff_of,
    play_together,
)
from envs.social.matrix import check_payoffs, payoffs_by_name

SIZES = (2, 3, 2)  # actions of the players


def random_classes(seed):
    """Three classes of unlike sizes: every mix-up of axes shows."""
    rng = np.random.default_rng(seed)
    classes = []
    for player, (policies, states) in enumerate(((2, 3), (3, 2), (4, 2))):
        a = SIZES[player]
        seen = int(np.prod(SIZES)) // a
        classes.append(
            PolicyClass(
                rng.dirichlet(np.ones(a), size=(policies, states)),
                rng.integers(states, size=(policies, states, a, seen)),
                rng.dirichlet(np.ones(policies)),
            )
        )
    return classes, rng.dirichlet(np.ones(24)).reshape(2, 3, 4)


def joint_index(joint, player):
    """Of the others' actions, ascending."""
    index = 0
    for i, action in enumerate(joint):
        index = index if i == player else index * SIZES[i] + action
    return index


def chance(classes, universe, history):
    """P(history) in one universe, round by round and player by player."""
    state, total = [0, 0, 0], 1.0
    for joint in history:
        for i, (c, k) in enumerate(zip(classes, universe, strict=True)):
            total *= c.output[k, state[i], joint[i]]
        state = [
            int(c.transition[k, state[i], joint[i], joint_index(joint, i)])
            for i, (c, k) in enumerate(zip(classes, universe, strict=True))
        ]
    return total


@pytest.mark.parametrize("player", range(3))
def test_three_players_against_explicit_universes(player):
    """Predictions of oneself and of the others' joint action from P(history) = Σ_universes w ∏ chances."""
    classes, weight = random_classes(player)
    history = [(0, 2, 1), (1, 0, 0), (1, 1, 1)]
    belief = joint_prior(classes, weight, player)
    for joint in history:
        belief = observe_percept(
            observe_action(belief, joint[player]), joint[player], joint_index(joint, player)
        )
    table = np.zeros((SIZES[player], int(np.prod(SIZES)) // SIZES[player]))
    for joint in itertools.product(*map(range, SIZES)):
        table[joint[player], joint_index(joint, player)] = sum(
            weight[universe] * chance(classes, universe, [*history, joint])
            for universe in np.ndindex(weight.shape)
        )
    np.testing.assert_allclose(predict_self(belief), table.sum(1) / table.sum(), rtol=1e-10)
    for a in range(SIZES[player]):
        np.testing.assert_allclose(predict_other(belief, a), table[a] / table[a].sum(), rtol=1e-10)


def test_two_players_are_the_two_player_mixture():
    policies = memory_one(0.1)
    crowd = others([policies, policies], 1)
    np.testing.assert_array_equal(crowd.output, policies.output)
    np.testing.assert_array_equal(crowd.transition, policies.transition)
    payoffs = check_payoffs(payoffs_by_name("twin_dilemma"))
    weight = copies(policies, 0.6, 2)
    agents = [
        EmbeddedAgent(joint_prior([policies] * 2, weight, i), payoff_of(payoffs, i))
        for i in range(2)
    ]
    assert play_together(agents, 8) == play(agents[0], agents[1], 8)


@pytest.mark.parametrize(("alpha", "first"), [(0.26, 0), (0.25, 1), (0.05, 2), (0.005, 4)])
def test_three_twins_provide_a_public_good_sooner(alpha, first):
    """Each keeps 1 or gives it, and 2/3 of a gift to everybody: C is worth more iff ω > 1/4.

    Two others matched the history, so ω = α / (α + (1 − α) 4^−k): evidence grows twice as fast as between two players.
    """
    rounds = 5
    cells = np.indices((2, 2, 2))
    payoffs = cells + 2 / 3 * (cells == 0).sum(0)  # action 1 keeps
    policies = open_loop(rounds, players=3)
    weight = copies(policies, alpha, 3)
    agents = [
        EmbeddedAgent(joint_prior([policies] * 3, weight, i), payoff_of(payoffs, i))
        for i in range(3)
    ]
    assert play_together(agents, rounds) == [(1, 1, 1)] * first + [(0, 0, 0)] * (rounds - first)
    apart = [EmbeddedAgent(decoupled(agent.belief), agent.payoff) for agent in agents]
    assert play_together(apart, 2) == [(1, 1, 1)] * 2


def test_bad_classes_and_priors():
    policies = open_loop(1)
    with pytest.raises(
        ValueError, match=r"transition of player 1 has 2 joint actions of the others; allowed: 4"
    ):
        others([policies] * 3, 0)
    with pytest.raises(ValueError, match=r"weights have shape \[2, 2\]; allowed: \[2, 2, 2\]"):
        joint_prior([policies] * 3, np.full((2, 2), 0.25), 0)
    with pytest.raises(ValueError, match=r"alpha is -0.1; allowed: in \[0, 1\]"):
        copies(policies, -0.1, 3)
