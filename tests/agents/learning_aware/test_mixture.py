"""Embedded Bayesian agents against the spec's tables and closed forms."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from agents.learning_aware import sequences
from agents.learning_aware.equilibria import (
    common_completion,
    is_subjective_equilibrium,
    island_gap,
    self_consistent,
)
from agents.learning_aware.mixture import (
    EmbeddedAgent,
    PolicyClass,
    copy_prior,
    coupling,
    decoupled,
    from_prior,
    memory_one,
    observe_action,
    observe_percept,
    open_loop,
    play,
    predict_other,
    predict_self,
    q_values,
    self_value,
)
from envs.social.matrix import SUBJECTIVE_ONLY, check_payoffs, payoffs_by_name

TWIN = (2.0, 0.0, 3.0, 1.0)
STAG = (4.0, 0.0, 3.0, 2.0)
ROUNDS = 7


def payoff(name="twin_dilemma"):
    return check_payoffs(payoffs_by_name(name))[0]


def twins(alpha, always_last=0.0, name="twin_dilemma", rounds=ROUNDS, prepare=lambda b: b):
    agent = EmbeddedAgent(prepare(copy_prior(open_loop(rounds, always_last), alpha)), payoff(name))
    return play(agent, agent, rounds)


def first_cooperation(history):
    return next((t for t, joint in enumerate(history) if joint == (0, 0)), None)


@pytest.mark.parametrize(("alpha", "first"), [(0.6, 0), (0.5, 1), (0.3, 2), (0.1, 4)])
@pytest.mark.parametrize("game", ["twin_dilemma", "prisoners_dilemma"])
def test_twins_cooperate_from_the_published_round_on(alpha, first, game):
    history = twins(alpha, name=game)
    assert first_cooperation(history) == first
    assert history == [(1, 1)] * first + [(0, 0)] * (ROUNDS - first)
    assert [a for a, _ in history] == sequences.twin_schedule(alpha, ROUNDS, TWIN)


@pytest.mark.parametrize(("alpha", "first"), [(0.01, 7), (0.001, 10)])
def test_rarer_copies_take_longer(alpha, first):
    schedule = sequences.twin_schedule(alpha, 14, TWIN)
    assert schedule == [1] * first + [0] * (14 - first)


@pytest.mark.parametrize(
    ("alpha", "first"),
    [(0.30, None), (1 / 3, None), (0.34, 6), (0.35, 4), (0.40, 2), (0.50, 1), (0.51, 0)],
)
def test_half_of_the_mass_on_defection(alpha, first):
    history = twins(alpha, always_last=0.5)
    assert first_cooperation(history) == first
    assert [a for a, _ in history] == sequences.twin_schedule(alpha, ROUNDS, TWIN, "half_defect")


@pytest.mark.parametrize("alpha", [0.1, 0.6, 0.99])
def test_decoupled_agents_defect_for_every_alpha(alpha):
    assert twins(alpha, prepare=decoupled) == [(1, 1)] * ROUNDS
    belief = decoupled(copy_prior(open_loop(4), alpha))
    assert coupling(belief) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(predict_other(belief, 0), predict_other(belief, 1), atol=1e-12)


@pytest.mark.parametrize("alpha", [0.6, 0.5, 0.3, 0.1])
def test_a_mirror_as_environment_is_played_like_a_twin(alpha):
    """A decoupled agent that thinks "the environment copies my action" possible: same threshold, same play.

    Worked out here without the mixture's code: behaviour alone does not tell the two kinds of agents apart.
    """
    plans = np.array(list(itertools.product(range(2), repeat=ROUNDS)))
    mirror, weight = alpha, np.full(len(plans), (1 - alpha) / len(plans))
    actions = []
    for t in range(ROUNDS):
        # p(c | own action); the copy's part depends on it causally, the plans' does not.
        chance = weight[plans[:, t] == 0].sum()
        cooperates = np.array([chance + mirror, chance]) / (weight.sum() + mirror)
        value = [np.array([p, 1 - p]) @ payoff()[a] for a, p in enumerate(cooperates)]
        action = 0 if value[0] > value[1] + 1e-12 else 1
        actions.append(action)
        weight = weight * (plans[:, t] == action)  # the other did the same
    assert actions == [a for a, _ in twins(alpha)]


@pytest.mark.parametrize(("q", "threshold"), [(0.0, 1 / 2), (0.5, 1 / 5)])
def test_stag_is_hunted_above_the_threshold_of_its_copy(q, threshold):
    above, below = (
        sequences.advantage_of_cooperation(STAG, threshold + d, q) for d in (1e-6, -1e-6)
    )
    assert below < 0 < above


def test_without_copies_coupled_is_decoupled():
    belief = copy_prior(open_loop(4), 0.0)
    other = decoupled(belief)
    for a, b in [(0, 1), (1, 1), (0, 0)]:
        belief = observe_percept(observe_action(belief, a), a, b)
        other = observe_percept(observe_action(other, a), a, b)
        np.testing.assert_allclose(np.exp(belief.log_weight), np.exp(other.log_weight), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_without_copies_play_is_that_of_a_decoupled_agent(seed):
    """Any payoff: two rounds ahead, against each other and against an opponent that copies the last action."""
    table = np.random.default_rng(seed).normal(size=(2, 2))
    belief = copy_prior(memory_one(0.1), 0.0)
    own, apart = (
        EmbeddedAgent(b, table, discount=0.6, depth=2, horizon=2)
        for b in (belief, decoupled(belief))
    )
    copycat = lambda history: history[-1][1] if history else 0  # noqa: E731
    for opponents in ((own, apart), (copycat, copycat)):
        assert play(own, opponents[0], 5) == play(apart, opponents[1], 5)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.7])
def test_predictive_similarity_is_the_copy_posterior(alpha):
    belief = copy_prior(open_loop(5), alpha)
    for k in range(4):
        omega = sequences.copy_posterior(alpha, 2.0**-k)
        similarity = predict_other(belief, 0)[0] - predict_other(belief, 1)[0]
        assert similarity == pytest.approx(omega, abs=1e-12)
        for name, numbers in (("twin_dilemma", TWIN), ("stag_hunt", STAG)):
            q = q_values(belief, payoff(name), 0.0, 1, 1)
            expected = sequences.advantage_of_cooperation(numbers, omega, 0.5)
            assert q[0] - q[1] == pytest.approx(expected, abs=1e-12)
        belief = observe_percept(observe_action(belief, 1), 1, 1)


def test_scripted_opponents():
    agent = EmbeddedAgent(copy_prior(open_loop(ROUNDS), 0.1), payoff())
    against = lambda opponent: [a for a, _ in play(agent, opponent, ROUNDS)]  # noqa: E731
    assert against(lambda history: 1) == [1, 1, 1, 1, 0, 1, 1]
    assert against(lambda history: 0) == [1] * ROUNDS


def test_different_alphas_never_meet():
    agents = [EmbeddedAgent(copy_prior(open_loop(ROUNDS), a), payoff()) for a in (0.3, 0.1)]
    history = play(*agents, ROUNDS)
    assert history == [(1, 1), (1, 1), (0, 1), *[(1, 1)] * (ROUNDS - 3)]


def test_independent_trembles_let_an_agent_cheat_its_twin():
    agent = EmbeddedAgent(copy_prior(memory_one(0.01), 0.9), payoff())
    history = play(agent, agent, 13)
    letters = "".join("CD"[a] for a, _ in history)
    assert letters == "CCDCCDDCCDDCC"
    assert all(a == b for a, b in history)
    for a, b in history[:2]:
        agent = agent.after(a, b)
    assert predict_other(agent.belief, 0)[0] == pytest.approx(0.99, abs=5e-3)
    assert predict_other(agent.belief, 1)[0] == pytest.approx(0.98, abs=5e-3)


def trembling_together(rounds, tremble):
    """Memory-1 policies with their trembles as part of them, so that a copy trembles in the same rounds.

    States: (round, last joint action); a policy is one of the 32 tables and one of the 2^rounds patterns of trembles.
    """
    tables = (np.arange(32)[:, None] >> np.arange(5)[::-1]) & 1
    patterns = np.array(list(itertools.product(range(2), repeat=rounds)))
    actions = (tables[:, None, None, :] + patterns[None, :, :, None]) % 2  # [32, P, round, 5]
    actions = actions.reshape(-1, 5 * rounds)
    chance = np.prod(np.where(patterns == 1, tremble, 1 - tremble), axis=1)
    following = np.minimum(np.arange(rounds) + 1, rounds - 1)[:, None, None, None] * 5
    following = following + 1 + np.arange(4).reshape(1, 1, 2, 2)
    transition = np.broadcast_to(following, (rounds, 5, 2, 2)).reshape(1, -1, 2, 2)
    transition = np.broadcast_to(transition, (len(actions), 5 * rounds, 2, 2))
    return PolicyClass(np.eye(2)[actions], transition, np.tile(chance, 32) / 32)


@pytest.mark.parametrize(("tremble", "after_defection"), [(0.01, 0.0265), (0.1, 0.0222)])
def test_shared_trembles_keep_twins_cooperating(tremble, after_defection):
    """The spec's 0.03 in round 2 (its trembles to two digits), where independent ones leave 0.98, see above."""
    rounds = 4
    agent = EmbeddedAgent(copy_prior(trembling_together(rounds, tremble), 0.9), payoff())
    assert play(agent, agent, rounds) == [(0, 0)] * rounds
    for _ in range(2):
        agent = agent.after(0, 0)
    assert predict_other(agent.belief, 0)[0] > 0.99
    assert predict_other(agent.belief, 1)[0] == pytest.approx(after_defection, abs=1e-4)


def test_copies_gain_nothing_in_anti_coordination():
    agent = EmbeddedAgent(copy_prior(open_loop(3), 0.99), payoff("anti_coordination"))
    q = q_values(agent.belief, agent.payoff, 0.0, 1, 1)
    assert q[0] == pytest.approx(q[1])
    assert q[0] < 0.5


def test_posterior_is_normalised_and_order_does_not_matter():
    belief = copy_prior(memory_one(0.1), 0.4)
    history = [(0, 1), (1, 1), (0, 0)]
    for a, b in history:
        after_action = observe_action(belief, a)
        assert np.exp(after_action.log_weight).sum() == pytest.approx(1, abs=1e-12)
        joint = np.exp(belief.log_weight) * _likelihood(belief, a, b)
        belief = observe_percept(after_action, a, b)
        np.testing.assert_allclose(np.exp(belief.log_weight), joint / joint.sum(), atol=1e-12)


def _likelihood(belief, a, b):
    own = belief.own.output[np.arange(32), belief.own_state, a]
    other = belief.other.output[np.arange(32), belief.other_state, b]
    return own[:, None] * other[None, :]


def test_planning_deeper_never_hurts_and_self_value_is_the_average():
    rng = np.random.default_rng(0)
    policies = memory_one(0.1)
    belief = from_prior(policies, policies, rng.dirichlet(np.ones(1024)).reshape(32, 32))
    tables = [q_values(belief, payoff(), 0.6, k, 4) for k in (1, 2, 3, 4)]
    for lower, higher in itertools.pairwise(tables):
        assert (lower <= higher + 1e-12).all()
    assert tables[0].max() < tables[-1].max()
    average = predict_self(belief) @ tables[0]
    assert self_value(belief, payoff(), 0.6, 4) == pytest.approx(average, abs=1e-12)


def test_log_loss_is_bounded_by_the_prior_weight():
    """Summed surprise of the true universe's data is at most −log w."""
    belief = copy_prior(open_loop(6), 0.2)
    weight = np.exp(belief.log_weight)[37, 37]
    surprise = 0.0
    for a in [int(x) for x in f"{37:06b}"]:
        surprise -= np.log(predict_self(belief)[a] * predict_other(belief, a)[a])
        belief = observe_percept(observe_action(belief, a), a, a)
    assert surprise <= -np.log(weight) + 1e-9


def surprise(belief, actions, others):
    """Summed log-loss of a belief's predictions along one history."""
    total = 0.0
    for a, b in zip(map(int, actions), map(int, others), strict=True):
        total -= np.log(predict_self(belief)[a] * predict_other(belief, a)[b])
        belief = observe_percept(observe_action(belief, a), a, b)
    return total


@pytest.mark.parametrize("prior", ["copies", "random"])
def test_coupled_predictions_lose_less_by_the_prior_coupling(prior):
    """Averaged over the prior, the gap to the product of the marginals is KL(ρ ‖ ρ_d): here all of the coupling."""
    policies = open_loop(2)  # two rounds reveal both sequences
    plans = np.array(list(itertools.product(range(2), repeat=2)))
    weight = np.random.default_rng(0).dirichlet(np.ones(16)).reshape(4, 4)
    belief = (
        copy_prior(policies, 0.3) if prior == "copies" else from_prior(policies, policies, weight)
    )
    gap = sum(
        np.exp(belief.log_weight[i, k])
        * (surprise(decoupled(belief), plans[i], plans[k]) - surprise(belief, plans[i], plans[k]))
        for i, k in itertools.product(range(4), repeat=2)
    )
    assert gap == pytest.approx(coupling(belief), abs=1e-12)
    assert gap > 0.05


def test_splitting_universes_destroys_information():
    policies = open_loop(1)
    belief = from_prior(policies, policies, np.diag([0.5, 0.5]))
    np.testing.assert_allclose(predict_other(belief, 0), [1, 0])
    np.testing.assert_allclose(predict_other(decoupled(belief), 0), [0.5, 0.5])


def test_one_shot_twins_are_embedded_but_not_nash():
    table = check_payoffs(payoffs_by_name("twin_dilemma"))
    mirror = np.eye(2)
    assert is_subjective_equilibrium(table, (0, 0), (mirror, mirror))
    assert common_completion(table, (0, 0)) is not None
    causal = np.array([[1.0, 0.0], [1.0, 0.0]])  # the other cooperates whatever I do
    assert not is_subjective_equilibrium(table, (0, 0), (causal, causal))


def test_one_shot_twins_are_no_correlated_equilibrium():
    """The largest chance of (C, C) in any correlated equilibrium is 0: nobody obeys a recommendation to cooperate."""
    table = check_payoffs(payoffs_by_name("twin_dilemma"))
    rows = []
    for told, other in itertools.permutations(range(2)):
        gain = np.zeros(
            (2, 2, 2)
        )  # by player: of disobeying `told`, times the chance of each joint action
        gain[0, told] = table[0][other] - table[0][told]
        gain[1, :, told] = table[1][:, other] - table[1][:, told]
        rows += [gain[0].ravel(), gain[1].ravel()]
    best = linprog(
        [-1, 0, 0, 0], A_ub=rows, b_ub=np.zeros(4), A_eq=np.ones((1, 4)), b_eq=[1], bounds=(0, 1)
    )
    assert -best.fun == pytest.approx(0, abs=1e-12)


def test_a_subjective_equilibrium_that_is_no_embedded_one():
    table = check_payoffs(SUBJECTIVE_ONLY)
    a, b, c = np.eye(3)
    beliefs = (np.stack([a, c, b]), np.stack([a, b, c]))
    assert is_subjective_equilibrium(table, (0, 0), beliefs)
    assert common_completion(table, (0, 0)) is None
    assert common_completion(table, (0, 0), slack=1.0) is None
    q = common_completion(table, (0, 0), slack=4.1)
    assert q is not None
    assert q.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("sinks", "expected"), [(0.8, [0.0, 1 / 15, 1.0]), (0.4, [1.0]), (0.5, [0.0, 1.0])]
)
def test_island_has_all_its_fixed_points(sinks, expected):
    found = self_consistent(lambda j: island_gap(j, 0.5, 1.0, 0.1, sinks))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_island_with_a_poor_outlook_has_only_the_trap():
    assert self_consistent(lambda j: island_gap(j, 0.95, 1.0, 0.1, 0.8)) == [0.0]


def test_bad_input():
    with pytest.raises(ValueError, match=r"alpha is 1.5; allowed: in \[0, 1\]"):
        copy_prior(open_loop(2), 1.5)
    with pytest.raises(ValueError, match=r"output has a row that sums to 0.7; allowed: prob"):
        PolicyClass(np.full((1, 1, 2), 0.35), np.zeros((1, 1, 2, 2), int), np.ones(1))
    policies = open_loop(1)
    with pytest.raises(ValueError, match=r"prior weights sum to 2"):
        from_prior(policies, policies, np.eye(2))
    certain = from_prior(policies, policies, np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"own action 1 has probability 0"):
        predict_other(certain, 1)
    with pytest.raises(ValueError, match=r"own action 1 has probability 0"):
        q_values(certain, payoff(), 0.0, 1, 1)
    with pytest.raises(ValueError, match=r"depth is 3; allowed: 1 to the horizon, 2"):
        q_values(copy_prior(policies, 0.5), payoff(), 0.0, 3, 2)
