"""Invariants of spec section 10 about gradients, in float64, against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from agents.credit import estimators
from agents.credit.quality import ratios
from envs.credit import KeyToDoor, Tree, enumerate_mdp, exact
from envs.credit.mdp import FiniteMDP
from tests.agents.credit.paths import covariance, gradients, mean, trajectories
from tests.envs.credit.mdps import SEEDS, random_logits, random_mdp, softmax

TOLERANCE = 1e-9
# Shrinking a random MDP costs minutes and makes it no simpler.
NO_SHRINK = (Phase.explicit, Phase.generate)


def coefficients(mdp, policy, encoding):
    return exact.contribution_ratio(exact.outcome_counts(mdp, policy, encoding), policy) - 1.0


def step_outcomes(mdp, encoding, states, batch):
    """One-hot outcome of every step of every path [N, T, K]."""
    values = jnp.asarray(mdp.reward_values)
    reward = jnp.argmin(jnp.abs(batch.reward[..., None] - values[None, None]), axis=-1)
    index = jnp.asarray(encoding.index)[states, batch.action, reward]
    return jax.nn.one_hot(index, encoding.size, dtype=jnp.float64)


def cocoa_tables(mdp, policy, encoding, batch, states):
    w = coefficients(mdp, policy, encoding)
    member = step_outcomes(mdp, encoding, states, batch)
    w_t = jnp.moveaxis(w[states], -1, -2)  # [N, T, K, A]
    return jax.vmap(estimators.cocoa)(batch, w_t, member)


def refined(encoding, labels):
    """The encoding with every class split by labels [S, A] of 0 and 1."""
    index = jnp.asarray(encoding.index) + encoding.size * jnp.asarray(labels)[:, :, None]
    return exact.Encoding(index=index, size=2 * encoding.size)


# Random MDPs share their lattice of returns, so that one program serves all of them.
SUPPORT = np.arange(-6.0, 4.0)
UNITS = np.array([0, 1, -2])


def return_index(batch):
    z = jax.vmap(estimators.returns_to_go)(batch)
    return jnp.argmin(jnp.abs(z[..., None] - jnp.asarray(SUPPORT)[None, None]), axis=-1)


def unbiased_tables(mdp, policy, batch, states, extra):
    """Contribution tables of every estimator that is unbiased."""
    v = exact.values(mdp, policy)
    state, reward = exact.state_encoding(mdp), exact.reward_encoding(mdp)
    w = jnp.moveaxis(coefficients(mdp, policy, state)[states], -1, -2)
    member = step_outcomes(mdp, state, states, batch)
    immediate = exact.mean_rewards(mdp)[states]
    returns = exact.return_distribution(mdp, policy, SUPPORT, UNITS)
    ratio = exact.contribution_ratio(returns, policy)[states, :, return_index(batch)]
    vmap = jax.vmap
    return {
        "reinforce": vmap(estimators.reinforce)(batch),
        "advantage": vmap(estimators.advantage)(batch, v.v[states]),
        "advantage, wrong V": vmap(estimators.advantage)(batch, extra["v"][states]),
        "q_critic": vmap(estimators.q_critic)(batch, v.q[states]),
        "trajectory_cv": vmap(estimators.trajectory_cv)(batch, v.q[states]),
        "trajectory_cv, wrong Q": vmap(estimators.trajectory_cv)(batch, extra["q"][states]),
        "hca": vmap(estimators.hca)(batch, w, member, immediate),
        "hca_plus": cocoa_tables(mdp, policy, state, batch, states),
        "cocoa_reward": cocoa_tables(mdp, policy, reward, batch, states),
        "grouped": cocoa_tables(mdp, policy, refined(reward, extra["labels"]), batch, states),
        "counterfactual_return": vmap(estimators.counterfactual_return)(batch, ratio),
    }


def wrong_tables(mdp, policy, batch, states, extra):
    """Tables of estimators with wrong models (or biased ones), and their expected advantages."""
    reward = exact.reward_encoding(mdp)
    w_t = jnp.moveaxis(extra["w"][states], -1, -2)
    member = step_outcomes(mdp, reward, states, batch)
    returns = exact.return_distribution(mdp, policy, SUPPORT, UNITS)
    full = exact.contribution_ratio(returns, policy)
    index = return_index(batch)
    ratio, noisy = full[states, :, index], (full * extra["noise"])[states, :, index]
    # Wherever z cannot follow on s and a, π/h is infinite and weighted by zero; so it is in the
    # tables of paths of probability zero.
    inverse = jnp.where(full > 0, 1.0 / jnp.where(full > 0, full, 1.0), 0.0)
    finite = lambda x: jnp.where(x > 0, x, 1.0)  # noqa: E731
    support = jnp.asarray(SUPPORT)
    return {
        "cocoa": (
            jax.vmap(estimators.cocoa)(batch, w_t, member),
            exact.advantage_contribution(mdp, policy, reward, extra["w"]),
        ),
        "hca_return": (
            jax.vmap(estimators.hca_return)(batch, finite(ratio)),
            exact.advantage_hca_return(returns, support, inverse),
        ),
        "hca_return, wrong": (
            jax.vmap(estimators.hca_return)(batch, finite(noisy)),
            exact.advantage_hca_return(returns, support, inverse / extra["noise"]),
        ),
        "counterfactual, wrong": (
            jax.vmap(estimators.counterfactual_return)(batch, noisy),
            exact.advantage_counterfactual_return(returns, policy, support, full * extra["noise"]),
        ),
    }


@jax.jit
def means(mdp, logits, batch, states, probability, total, extra):
    """Mean gradients of everything, beside three independent truths."""
    policy, start = softmax(logits), jnp.asarray(mdp.start)

    def brute(logits):
        chosen = jax.nn.log_softmax(logits)[states, batch.action] * batch.alive
        weight = jax.lax.stop_gradient(jnp.where(policy_free > 0, policy_free, 0.0))
        return jnp.sum(weight * jnp.exp(jnp.sum(chosen, axis=1)) * total)

    log_chosen = jnp.log(policy)[states, batch.action] * batch.alive
    policy_free = probability / jnp.exp(jnp.sum(log_chosen, axis=1))
    truth = {
        "autodiff": jax.grad(lambda x: start @ exact.values(mdp, softmax(x)).v)(logits),
        "dynamic programming": exact.expected_gradient(
            mdp, softmax, logits, exact.values(mdp, policy).q
        ),
        "brute force": jax.grad(brute)(logits),
    }
    found = {
        name: mean(probability, gradients(logits, batch, states, t))
        for name, t in unbiased_tables(mdp, policy, batch, states, extra).items()
    }
    pairs = {}
    for name, (table, advantage) in wrong_tables(mdp, policy, batch, states, extra).items():
        for first in (False, True):
            single = gradients(logits, batch, states, table, first_only=first)
            wanted = exact.expected_gradient(
                mdp, softmax, logits, advantage, first_state_only=first
            )
            pairs[f"{name}, first {first}"] = (mean(probability, single), wanted)
    return truth, found, pairs


@settings(max_examples=8, phases=NO_SHRINK)
@given(seed=SEEDS)
def test_means_are_exact(seed):
    """Every unbiased estimator's mean over all trajectories is the gradient of V(s0), by autodiff, by
    dynamic programming and by brute force; wrong models have the mean that theory predicts."""
    with jax.enable_x64(True):
        mdp = random_mdp(seed, levels=3, anywhere=True)
        rng = np.random.default_rng(seed)
        S, A, R = mdp.reward_probs.shape
        extra = {
            "v": rng.normal(size=S),
            "q": rng.normal(size=(S, A)),
            "w": rng.normal(size=(S, A, R)),
            "labels": rng.integers(2, size=(S, A)).astype(np.int32),
            "noise": 1.0 + 0.3 * rng.uniform(size=(S, A, len(SUPPORT))),
        }
        logits = jnp.asarray(random_logits(seed, mdp))
        batch, states, probability = trajectories(mdp, softmax(logits), size=1536)
        assert abs(float(probability.sum()) - 1.0) < TOLERANCE
        total = batch.reward.sum(1)
        extra = jax.tree.map(jnp.asarray, extra)
        truth, found, pairs = means(mdp, logits, batch, states, probability, total, extra)
        for name, gradient in (truth | found).items():
            np.testing.assert_allclose(gradient, truth["autodiff"], atol=TOLERANCE, err_msg=name)
        for name, (sampled, expected) in pairs.items():
            np.testing.assert_allclose(sampled, expected, atol=TOLERANCE, err_msg=name)
        assert np.abs(truth["autodiff"]).max() > 1e-3


@jax.jit
def lemma(mdp, logits, batch, states, probability):
    policy = softmax(logits)
    v = exact.values(mdp, policy)
    by_encoding = [
        exact.advantage_contribution(mdp, policy, encoding, coefficients(mdp, policy, encoding))
        for encoding in (exact.state_encoding(mdp), exact.reward_encoding(mdp))
    ]
    tables = cocoa_tables(mdp, policy, exact.reward_encoding(mdp), batch, states)
    here = jax.nn.one_hot(states, mdp.num_states, dtype=jnp.float64)
    visits = jnp.einsum("n,nts->s", probability, here)
    rows = jnp.einsum("n,nts,nta->sa", probability, here, tables) / visits[:, None]
    rows -= jnp.sum(policy * rows, axis=1, keepdims=True)
    return v.q - v.v[:, None], by_encoding, rows, visits


@settings(max_examples=4, phases=NO_SHRINK)
@given(seed=SEEDS)
def test_lemma_and_mean_table(seed):
    """Spec 10.16 and 10.17: contributions average to the true advantage at every state."""
    with jax.enable_x64(True):
        mdp = random_mdp(seed, levels=3)
        logits = jnp.asarray(random_logits(seed, mdp))
        batch, states, probability = trajectories(mdp, softmax(logits))
        true, by_encoding, rows, visits = lemma(mdp, logits, batch, states, probability)
        alive = ~mdp.terminal
        for found in by_encoding:
            np.testing.assert_allclose(found[alive], true[alive], atol=TOLERANCE)
        seen = alive & (np.asarray(visits) > 1e-9)
        np.testing.assert_allclose(rows[seen], true[seen], atol=TOLERANCE)


@jax.jit
def covariances(mdp, logits, batch, states, probability, labels):
    policy = softmax(logits)
    reward = exact.reward_encoding(mdp)
    S = mdp.num_states
    # States that also tell the reward, the theorem's finest encoding that predicts it.
    fine = exact.Encoding(
        index=jnp.asarray(reward.index)
        + reward.size * jnp.arange(S, dtype=jnp.int32)[:, None, None],
        size=reward.size * S,
    )
    tables = [
        cocoa_tables(mdp, policy, encoding, batch, states)
        for encoding in (reward, refined(reward, labels), fine)
    ]
    tables.append(jax.vmap(estimators.reinforce)(batch))
    return [
        covariance(probability, gradients(logits, batch, states, t, first_only=True))
        for t in tables
    ]


@settings(max_examples=4, phases=NO_SHRINK)
@given(seed=SEEDS)
def test_variance_order_of_theorem_3(seed):
    """All reward in the last step, one differentiated decision: Var(R) ≼ Var(groups) ≼ Var(S) ≼ Var(Z)."""
    with jax.enable_x64(True):
        mdp = random_mdp(seed, levels=3, last_only=True)
        logits = jnp.asarray(random_logits(seed, mdp))
        batch, states, probability = trajectories(mdp, softmax(logits))
        labels = np.broadcast_to((np.arange(mdp.num_states) % 2)[:, None], logits.shape)
        found = covariances(mdp, logits, batch, states, probability, jnp.asarray(labels, jnp.int32))
        for smaller, larger in itertools.pairwise(found):
            gap = np.linalg.eigvalsh(np.asarray(larger - smaller))
            assert gap.min() > -TOLERANCE


def test_hca_return_is_biased_in_a_bandit():
    """Spec 10.9: advantages 1/3 and -4/3 instead of 1 and -2."""
    with jax.enable_x64(True):
        transition = np.zeros((2, 2, 2))
        transition[:, :, 1] = 1.0
        reward_probs = np.zeros((2, 2, 3))
        reward_probs[0, 0, 1] = reward_probs[0, 1, 2] = reward_probs[1, :, 0] = 1.0
        mdp = FiniteMDP(
            transition=transition,
            reward_probs=reward_probs,
            reward_values=np.array([0.0, 1.0, -2.0]),
            start=np.array([1.0, 0.0]),
            observations=np.eye(2),
            terminal=np.array([False, True]),
            horizon=1,
        )
        policy = jnp.array([[2 / 3, 1 / 3], [0.5, 0.5]])
        support, units = exact.return_support(mdp)
        returns = exact.return_distribution(mdp, policy, support, units)
        ratio = exact.contribution_ratio(returns, policy)
        inverse = jnp.where(ratio > 0, 1.0 / jnp.where(ratio > 0, ratio, 1.0), 0.0)
        biased = exact.advantage_hca_return(returns, jnp.asarray(support), inverse)[0]
        np.testing.assert_allclose(biased, [1 / 3, -4 / 3], atol=TOLERANCE)
        v = exact.values(mdp, policy)
        np.testing.assert_allclose((v.q - v.v[:, None])[0], [1.0, -2.0], atol=TOLERANCE)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_tree(overlap):
    """Spec 10.10: without overlap HCA+ is REINFORCE path by path; 10.13: TrajCV is the Q-critic."""
    with jax.enable_x64(True):
        env = Tree(depth=3, actions=3, overlap=overlap, seed_offset=7)
        mdp = enumerate_mdp(env, env.default_params)
        logits = jnp.asarray(random_logits(3, mdp))
        policy = softmax(logits)
        batch, states, probability = trajectories(mdp, policy)

        @jax.jit
        def found():
            encoding, q = exact.state_encoding(mdp), exact.values(mdp, policy).q[states]
            tables = (
                cocoa_tables(mdp, policy, encoding, batch, states),
                jax.vmap(estimators.reinforce)(batch),
                jax.vmap(estimators.q_critic)(batch, q),
                jax.vmap(estimators.trajectory_cv)(batch, q),
            )
            return [gradients(logits, batch, states, table) for table in tables]

        hca, reinforce, critic, cv = found()
        same = np.abs(np.asarray(hca - reinforce)).max() < TOLERANCE
        assert same == (overlap == 0)
        np.testing.assert_allclose(cv, critic, atol=TOLERANCE)
        np.testing.assert_allclose(
            mean(probability, hca), mean(probability, reinforce), atol=TOLERANCE
        )


def test_random_rewards_keep_trajectory_cv_from_being_the_critic():
    """Spec 10.13: apples pay 0.1 or 0.9 at random, which the true Q cannot tell: TrajCV's score term is
    off by what each pick paid too much, and by nothing else."""
    with jax.enable_x64(True):
        env = KeyToDoor(length=4)
        mdp = enumerate_mdp(env, env.default_params)
        logits = jnp.asarray(random_logits(3, mdp))
        policy = softmax(logits)
        batch, states, _ = trajectories(mdp, policy, size=1)
        v = exact.values(mdp, policy)
        q = v.q[states]
        critic = jax.vmap(estimators.q_critic)(batch, q) + v.v[states][..., None]
        cv = jax.vmap(estimators.trajectory_cv)(batch, q)
        luck = batch.reward - exact.mean_rewards(mdp)[states, batch.action]
        expected = jax.vmap(
            lambda t, x: estimators.on_taken_action(t, jax.lax.cumsum(x, reverse=True))
        )(batch, luck)
        np.testing.assert_allclose(cv - critic, expected, atol=TOLERANCE)
        assert np.abs(cv - critic).max() > 1.0


@jax.jit
def identities(mdp, logits, batch, states, probability, offset):
    policy = softmax(logits)
    encoding = exact.reward_encoding(mdp)
    tables = cocoa_tables(mdp, policy, encoding, batch, states)
    plain = gradients(logits, batch, states, tables)
    shifted = gradients(logits, batch, states, tables + offset)
    truth = exact.expected_gradient(mdp, softmax, logits, exact.values(mdp, policy).q)
    flat = (plain + 0.1).reshape(plain.shape[0], -1)
    quality = ratios(truth.reshape(-1), probability @ flat, flat, probability)

    w = jnp.moveaxis(coefficients(mdp, policy, encoding)[states], -1, -2)
    member = step_outcomes(mdp, encoding, states, batch)
    reward = batch.reward * batch.alive
    backwards = jnp.zeros_like(tables)
    for t in range(mdp.horizon):
        for k in range(t):
            at_u = jnp.einsum("nka,nk->na", w[:, k], member[:, t])
            backwards = backwards.at[:, k].add(at_u * reward[:, t, None])
    immediate = jax.vmap(estimators.on_taken_action)(batch, reward)
    return plain, shifted, quality, backwards + immediate, tables


@settings(max_examples=3, phases=NO_SHRINK)
@given(seed=SEEDS)
def test_table_identities(seed):
    """An action-independent offset changes nothing (10.15); 1/SNR = variance + bias (10.14); rewards
    credited backwards are the same as contributions summed forwards (spec section 2)."""
    with jax.enable_x64(True):
        mdp = random_mdp(seed, levels=3)
        logits = jnp.asarray(random_logits(seed, mdp))
        batch, states, probability = trajectories(mdp, softmax(logits))
        offset = jnp.asarray(np.random.default_rng(seed).normal(size=(*states.shape, 1)))
        plain, shifted, quality, backwards, tables = identities(
            mdp, logits, batch, states, probability, offset
        )
        np.testing.assert_allclose(plain, shifted, atol=TOLERANCE)
        np.testing.assert_allclose(backwards, tables, atol=TOLERANCE)
        power = lambda name: 10 ** (float(quality[name]) / 10)  # noqa: E731
        assert power("variance_db") + power("bias_db") == pytest.approx(
            1 / power("snr_db"), rel=1e-9
        )


@settings(max_examples=3, phases=NO_SHRINK)
@given(seed=SEEDS)
def test_sampled_actions_are_unbiased(seed):
    """The mean over all single draws, weighted by π, is the sum over actions."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        log_policy = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(1, 3))))
        summed = jnp.asarray(rng.normal(size=(1, 3)))
        keys = jax.random.split(jax.random.key(seed), 20_000)
        draws = jax.vmap(lambda k: estimators.sample_actions(k, summed, log_policy, 4))(keys)
        error = np.asarray(draws.std(0)) / np.sqrt(len(keys))
        assert (np.abs(np.asarray(draws.mean(0) - summed)) < 5 * error).all()
