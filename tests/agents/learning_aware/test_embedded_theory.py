"""What MUPI's theorems on embedded agents suppose, each with a case where it fails (spec 11.1, 11.2, 11.5)."""

import itertools

import numpy as np
import pytest

from agents.learning_aware.equilibria import common_completion, is_subjective_equilibrium
from agents.learning_aware.mixture import (
    Belief,
    EmbeddedAgent,
    PolicyClass,
    copy_prior,
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
)
from envs.social.matrix import check_payoffs, payoffs_by_name


def payoffs(name="twin_dilemma"):
    return check_payoffs(payoffs_by_name(name))


# Grain of truth (11.1): predictions of a mixture converge where the true universe has weight.


def predictions_in(belief, truth, rounds):
    """Along one sampled history of universe `truth`: total variation of the next round's joint action by round, the
    summed log-likelihood ratio of truth and mixture, and the last belief."""
    rng = np.random.default_rng(0)
    i, k = truth
    distance, ratio = [], 0.0
    for _ in range(rounds):
        own = belief.own.output[i, belief.own_state[i]]
        other = belief.other.output[k, belief.other_state[k]]
        found = predict_self(belief)[:, None] * [predict_other(belief, a) for a in range(2)]
        true = np.outer(own, other)
        distance.append(np.abs(found - true).sum() / 2)
        a, b = rng.choice(2, p=own), rng.choice(2, p=other)
        ratio += np.log(true[a, b] / found[a, b])
        belief = observe_percept(observe_action(belief, a), a, b)
    return np.array(distance), ratio, belief


TRUTHS = [(6, 6), (22, 9)]
"""A pair of copies, and a pair that the prior calls unlikely; both are memory-1 policies that tremble."""


def without(prior, universes):
    """The prior with weight 0 on a boolean choice [N, K] of universes."""
    weight = np.where(universes, 0.0, np.exp(prior.log_weight))
    return from_prior(prior.own, prior.other, weight / weight.sum())


def alike(truth):
    """[32, 32]: universes that differ from `truth` at most in first actions, which the highest bit of a policy is."""
    i, k = (np.arange(32) % 16 == policy % 16 for policy in truth)
    return np.outer(i, k)


def just(truth):
    """[32, 32]: the one universe."""
    chosen = np.zeros((32, 32), bool)
    chosen[truth] = True
    return chosen


@pytest.mark.parametrize("truth", TRUTHS)
def test_a_grain_of_truth_makes_predictions_true(truth):
    prior = copy_prior(memory_one(0.1), 0.3)
    distance, ratio, belief = predictions_in(prior, truth, 300)
    assert ratio <= -prior.log_weight[truth]
    assert distance[0] > 0.2
    assert distance[-50:].max() < 1e-3
    # What is left of the posterior bounds the distance of predictions of the whole future.
    assert np.exp(belief.log_weight)[alike(truth)].sum() > 1 - 1e-6


@pytest.mark.parametrize("truth", TRUTHS)
def test_without_a_grain_of_truth_predictions_stay_wrong(truth):
    """The same class and the same data, with weight 0 on 4 of 1024 universes."""
    prior = without(copy_prior(memory_one(0.1), 0.3), alike(truth))
    distance, ratio, _ = predictions_in(prior, truth, 300)
    # Wrong by far where the missing universe differs from what is left, again and again.
    assert distance[-50:].max() > 0.7
    assert ratio > 30


def test_a_universe_that_dominates_the_truth_is_grain_enough():
    """Weight 0 on the truth itself: another first action costs a factor of 0.1 / 0.9 once, and ρ ≥ c · truth holds."""
    prior = without(copy_prior(memory_one(0.1), 0.3), just(TRUTHS[0]))
    distance, ratio, _ = predictions_in(prior, TRUTHS[0], 300)
    assert distance[-50:].max() < 1e-3
    near = np.exp(prior.log_weight[alike(TRUTHS[0])]).max()
    assert ratio <= -np.log(near) + 2 * np.log(9)  # both first actions


def surprise_about_itself(policies, alpha, rounds):
    """−log ρ(a | history) of what an agent did itself, by round, against its twin; and the actions."""
    agent = EmbeddedAgent(copy_prior(policies, alpha), payoffs()[0])
    history = play(agent, agent, rounds)
    found = []
    for a, b in history:
        found.append(-np.log(predict_self(agent.belief)[a]))
        agent = agent.after(a, b)
    return np.array(found), [a for a, _ in history]


def test_an_agent_whose_play_is_in_its_class_learns_to_predict_itself():
    """It defects for ever, and half of the mass is on that."""
    surprise, actions = surprise_about_itself(open_loop(7, 0.5), 0.3, 7)
    assert actions == [1] * 7
    assert surprise.sum() <= -np.log(0.5)
    assert surprise[-1] < 0.02 < surprise[0]


def test_an_agent_whose_play_is_not_in_its_class_never_does():
    """Best responses to beliefs over memory-1 policies are no memory-1 policy, so its own play keeps surprising it."""
    surprise, actions = surprise_about_itself(memory_one(0.01), 0.9, 24)
    tables = np.argmax(memory_one().output, axis=-1)  # [32, 5]
    seen = [0, *(1 + 3 * a for a in actions[:-1])]  # twins: CC or DD
    mistakes = (tables[:, seen] != actions).sum(1)
    assert mistakes.min() >= 5
    assert (surprise[12:] > 4).sum() >= 5
    assert surprise.sum() > -10 * np.log(1 / 32)


# Dogmatic beliefs (11.2): any deterministic profile is a subjective embedded equilibrium.

HORIZON = 3
NOTHING = 2
"""Percept of a reward of 0, which the true game never gives."""


def dogmatic(own: np.ndarray, other: np.ndarray) -> Belief:
    """Belief of a player who is to play `own` against `other` [H] that after any deviation there is nothing for ever.

    Universes are pairs of an own sequence and an environment: the true one up to the sequence's first deviation. Percepts
    are the other's two actions, and nothing.
    """
    plans = np.array(list(itertools.product(range(2), repeat=HORIZON)))
    following = np.minimum(np.arange(HORIZON) + 1, HORIZON - 1)
    shape = (len(plans), HORIZON)
    weight = np.where((plans == own).all(1), 0.999, 0.001 / (len(plans) - 1))
    strayed = np.maximum.accumulate(plans != own, axis=1)
    moves = np.broadcast_to(following[:, None, None], (*shape, 2, 3))
    actors = PolicyClass(np.eye(2)[plans], moves, weight)
    percepts = np.eye(3)[np.where(strayed, NOTHING, other)]
    worlds = PolicyClass(percepts, moves.swapaxes(2, 3), weight)
    return from_prior(actors, worlds, np.diag(weight))


def is_played(profile, prepare) -> bool:
    """Whether both best-respond with the profile at every round; checks that the path is predicted for sure."""
    # Rewards in (0, 1], as the theory has them; the dilemma's own are 0 to 3.
    table = (payoffs()[0] + 1) / 4
    table = np.hstack([table, np.zeros((2, 1))])
    beliefs = [prepare(dogmatic(own, other)) for own, other in (profile, reversed(profile))]
    for t, joint in enumerate(zip(*(plan.tolist() for plan in profile), strict=True)):
        for i, (a, b) in enumerate((joint, joint[::-1])):
            left = HORIZON - t
            q = q_values(beliefs[i], table, 0.9, left, left)
            if q[a] < q.max() - 1e-12:
                return False
            if prepare is not decoupled:
                assert predict_other(beliefs[i], a)[b] == pytest.approx(1, abs=1e-12)
            beliefs[i] = observe_percept(observe_action(beliefs[i], a), a, b)
    return True


def all_profiles():
    plans = [np.array(p) for p in itertools.product(range(2), repeat=HORIZON)]
    return list(itertools.product(plans, repeat=2))


def test_dogmatic_beliefs_support_any_profile():
    """Even "I cooperate, you defect", since both are right on the path and never stray from it to learn."""
    assert all(is_played(profile, lambda b: b) for profile in all_profiles())


def test_the_same_beliefs_decoupled_support_defection_only():
    """What the dogma needs is own actions as evidence: the marginals alone leave the only Nash outcome."""
    played = [profile for profile in all_profiles() if is_played(profile, decoupled)]
    np.testing.assert_array_equal(played, np.ones((1, 2, HORIZON)))


def test_dogma_cannot_hide_known_payoffs():
    """If percepts are the other's actions only and the payoffs are known, (C, D) has no belief to support it: D pays at
    least P > S. Expected payoffs are linear in the belief, so certain ones are all that need a look."""
    right = np.array([[0.0, 1.0]])
    for b in range(2):
        mine = np.vstack([right, np.eye(2)[b]])  # the other defects if I cooperate; if not, b
        for c in range(2):
            theirs = np.vstack([np.eye(2)[c], [[1.0, 0.0]]])
            assert not is_subjective_equilibrium(payoffs(), (0, 1), (mine, theirs))


# Embedded equilibria with decoupled beliefs are Nash equilibria (11.2).


def limit_beliefs(profile, q, prepare=lambda b: b):
    """p(other's action | own) [A, A] of both players under (1 − ε) truth + ε q, ε → 0; q [A, A] by player 1, player 2."""
    size, tiny = len(q), 1e-14
    constant = PolicyClass(
        np.eye(size)[:, None], np.zeros((size, 1, size, size), int), np.full(size, 1 / size)
    )
    weight = tiny * q
    weight[profile] += 1 - tiny
    both = (from_prior(constant, constant, w) for w in (weight, weight.T))
    first, second = (
        np.stack([predict_other(belief, a) for a in range(size)]) for belief in map(prepare, both)
    )
    return first, second


def is_nash(table, profile):
    a, b = profile
    return table[0][a, b] >= table[0][:, b].max() and table[1][a, b] >= table[1][a].max()


@pytest.mark.parametrize("size", [2, 3])
def test_decoupled_embedded_equilibria_are_the_nash_equilibria(size):
    """Random games and random strictly positive q, coupled at first: of all profiles, exactly the Nash equilibria."""
    rng = np.random.default_rng(size)
    verdicts, coupled = [], []
    for _ in range(12):
        table = rng.uniform(size=(2, size, size))
        q = rng.dirichlet(np.ones(size * size)).reshape(size, size)
        for profile in np.ndindex(size, size):
            beliefs = limit_beliefs(profile, q, decoupled)
            verdict = is_subjective_equilibrium(table, profile, beliefs)
            assert verdict == is_nash(table, profile)
            verdicts.append(verdict)
            coupled.append(is_subjective_equilibrium(table, profile, limit_beliefs(profile, q)))
    assert 0 < sum(verdicts) < len(verdicts)
    assert coupled != verdicts  # decoupling changes something


def test_cooperation_is_lost_with_the_coupling():
    """The linear program's own q supports (C, C) among twins, and does not once it is decoupled."""
    table, together = payoffs(), (0, 0)
    q = common_completion(table, together)
    assert q is not None
    assert is_subjective_equilibrium(table, together, limit_beliefs(together, q))
    assert not is_subjective_equilibrium(table, together, limit_beliefs(together, q, decoupled))


def test_an_independent_q_alone_does_not_decouple():
    """(C, C) again: mixing truth with a product q leaves "if I defect, so do you", for a deviation rules out the truth.

    So "q decoupled" must be read as the whole mixture being a product.
    """
    q = np.outer([0.01, 0.99], [0.01, 0.99])  # strictly positive, and the same for both
    assert is_subjective_equilibrium(payoffs(), (0, 0), limit_beliefs((0, 0), q))
    assert not is_subjective_equilibrium(payoffs(), (0, 0), limit_beliefs((0, 0), q, decoupled))
    assert not is_nash(payoffs(), (0, 0))


# The causal reading of the coupled class (11.5).

ROUNDS = 6


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.6, 0.99])
def test_a_causal_reading_of_the_coupled_class_defects(alpha):
    """The belief is the twins' own, in the end nearly sure of a copy; a contemplated action is just no evidence."""
    agent = EmbeddedAgent(copy_prior(open_loop(ROUNDS), alpha), payoffs()[0], causal=True)
    assert play(agent, agent, ROUNDS) == [(1, 1)] * ROUNDS
    for _ in range(ROUNDS - 1):
        agent = agent.after(1, 1)
    belief = agent.belief
    assert predict_other(belief, 0)[0] - predict_other(belief, 1)[0] > 0.75  # ω
    embedded = q_values(belief, agent.payoff, 0.0, 1, 1)
    causal = q_values(belief, agent.payoff, 0.0, 1, 1, causal=True)
    assert embedded[0] > embedded[1]
    # By ρ(c | history), which both actions share, D is worth P − S = 1 more.
    chance = np.exp(belief.log_weight).sum(0) @ belief.other.output[:, ROUNDS - 1, 0]
    np.testing.assert_allclose(causal, [2 * chance, 1 + 2 * chance], atol=1e-12)


@pytest.mark.parametrize("horizon", [2, 3])
def test_planning_ahead_does_not_bring_the_evidence_back(horizon):
    """Neither may a later contemplated action be evidence."""
    prior = copy_prior(open_loop(horizon), 0.6)
    plan = (payoffs()[0], 0.9, horizon, horizon)
    causal, embedded = (q_values(prior, *plan, causal=c) for c in (True, False))
    assert causal[1] > causal[0]
    assert embedded[0] > embedded[1]


def test_causal_agents_hunt_where_they_expect_company():
    """No mere preference for the last action: a stag is hunted iff 4 p > 2 + p, p = ρ(stag | history)."""
    agent = EmbeddedAgent(copy_prior(open_loop(4), 0.6), payoffs("stag_hunt")[0], causal=True)
    assert play(agent, agent, 4) == [(1, 1)] * 4  # p = 1/2 at first, and less after hares
    # Two thirds of the mass on "always the last action" with the actions renamed: company is likely.
    policies = open_loop(4, 0.7)
    mirrored = PolicyClass(policies.output[..., ::-1], policies.transition, policies.weight)
    agent = EmbeddedAgent(copy_prior(mirrored, 0.6), payoffs("stag_hunt")[0], causal=True)
    assert play(agent, agent, 4) == [(0, 0)] * 4


# Zero-sum games (11.5): nothing to gain from a copy.


@pytest.mark.parametrize("alpha", [0.3, 0.9, 0.999])
def test_in_symmetric_zero_sum_games_copies_only_draw(alpha):
    """u(a, b) = −u(b, a): against a copy every action pays 0, so Q = (1 − ω) Q_decoupled, and the choice stays."""
    rng = np.random.default_rng(0)
    constant = PolicyClass(
        np.eye(3)[:, None], np.zeros((3, 1, 3, 3), int), np.array([0.5, 0.3, 0.2])
    )
    prior = copy_prior(constant, alpha)
    paper = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    for table in (paper, *(x - x.T for x in rng.normal(size=(5, 3, 3)))):
        found = q_values(prior, table, 0.0, 1, 1)
        apart = q_values(decoupled(prior), table, 0.0, 1, 1)
        np.testing.assert_allclose(found, (1 - alpha) * apart, atol=1e-12)
        assert found.argmax() == apart.argmax()
    # The same arithmetic in the dilemma turns the choice round: the test could fail.
    prior = copy_prior(open_loop(1), alpha)
    apart = q_values(decoupled(prior), payoffs()[0], 0.0, 1, 1)
    assert apart.argmax() == 1
    assert q_values(prior, payoffs()[0], 0.0, 1, 1).argmax() == (0 if alpha > 0.5 else 1)


@pytest.mark.parametrize("alpha", [0.1, 0.9, 0.999])
def test_zero_sum_twins_play_what_decoupled_agents_play(alpha):
    """The dominated action 0 is never chosen, however sure they are of a copy; both get the value of the game, 0."""
    table = np.array([[0.0, -1.0], [1.0, 0.0]])
    prior = copy_prior(open_loop(4), alpha)
    agents = [EmbeddedAgent(b, table) for b in (prior, decoupled(prior))]
    histories = [play(agent, agent, 4) for agent in agents]
    assert histories[0] == histories[1] == [(1, 1)] * 4


def test_matching_pennies_pay_a_believer_in_copies_only_in_belief():
    """The matcher expects to win ω, its opponent to lose ω; both are indifferent, and what is paid sums to 0."""
    table, alpha = payoffs("matching_pennies"), 0.9
    seats = [table[0], table[1].T]  # own action first
    prior = copy_prior(open_loop(3), alpha)
    for seat, sign in zip(seats, (1, -1), strict=True):
        np.testing.assert_allclose(q_values(prior, seat, 0.0, 1, 1), sign * alpha, atol=1e-12)
    first, second = (EmbeddedAgent(prior, seat) for seat in seats)
    history = play(first, second, 3)
    assert history == [(1, 1)] * 3  # ties go to the last action: no "cooperation" of action 0
    for a, b in history:
        assert seats[0][a, b] + seats[1][b, a] == 0
