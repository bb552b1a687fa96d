"""Invariants of spec section 10 about coefficients and tables, in float64, against brute force."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from envs.credit import Interleaving, InterleavingParams, KeyToDoor, enumerate_mdp, exact
from envs.credit.enumeration import enumerate_paths
from envs.credit.mdp import check_mdp, is_ordered
from tests.envs.credit.mdps import SEEDS, cyclic_mdp, random_logits, random_mdp, softmax, two_ends
from tests.internal_rl.small import all_equations

# Shrinking a random MDP costs minutes and makes it no simpler.
FEW = settings(max_examples=4, phases=(Phase.explicit, Phase.generate))
TOLERANCE = 1e-9


@jax.jit
def tables(mdp, logits, groups):
    """Everything that the tests look at, for U = S, U = R and a refinement of R."""
    policy = softmax(logits)
    state, reward = exact.state_encoding(mdp), exact.reward_encoding(mdp)
    group = exact.Encoding(
        index=jnp.asarray(reward.index) + reward.size * groups[:, :, None], size=2 * reward.size
    )
    found = {}
    for name, encoding in (("state", state), ("reward", reward), ("group", group)):
        counts = exact.outcome_counts(mdp, policy, encoding)
        found[name] = counts, exact.contribution_ratio(counts, policy)
    return policy, found, exact.values(mdp, policy)


def case(seed):
    mdp = random_mdp(seed, levels=3)
    groups = np.random.default_rng(seed).integers(2, size=(mdp.num_states, mdp.num_actions))
    return mdp, jnp.asarray(random_logits(seed, mdp)), jnp.asarray(groups, jnp.int32)


@FEW
@given(seed=SEEDS)
def test_coefficients(seed):
    with jax.enable_x64(True):
        mdp, logits, groups = case(seed)
        policy, found, _ = jax.device_get(tables(mdp, logits, groups))
        for _, ratio in found.values():
            w = ratio - 1
            np.testing.assert_allclose(np.einsum("sa,sak->sk", policy, w), 0, atol=TOLERANCE)
            assert w.min() >= -1 - TOLERANCE
            assert (w <= 1 / policy[:, :, None] - 1 + TOLERANCE).all()
        # n_g-refinements average back to U = R, weighted by how often each follows.
        counts, ratio = found["group"]
        total = np.einsum("sa,sak->sk", policy, counts)
        R = len(mdp.reward_values)
        paired = (ratio * total[:, None]).reshape(*policy.shape, 2, R).sum(2)
        weight = total.reshape(-1, 2, R).sum(1)[:, None]
        coarse = np.where(weight > 0, paired / np.where(weight > 0, weight, 1), 1)
        np.testing.assert_allclose(coarse, found["reward"][1], atol=TOLERANCE)


@FEW
@given(seed=SEEDS)
def test_tables_are_those_of_all_paths(seed):
    with jax.enable_x64(True):
        mdp, logits, groups = case(seed)
        policy, found, values = jax.device_get(tables(mdp, logits, groups))
        paths = enumerate_paths(mdp)
        p = np.asarray(paths.probability(jnp.asarray(policy)))
        assert abs(p.sum() - 1) < TOLERANCE
        assert p @ paths.rewards.sum(1) == pytest.approx(values.v[0], abs=TOLERANCE)
        first = np.stack([p * (paths.actions[:, 0] == a) for a in range(mdp.num_actions)])
        first /= first.sum(1, keepdims=True)
        np.testing.assert_allclose(first @ paths.rewards.sum(1), values.q[0], atol=TOLERANCE)
        # Counts: the end is never left within the horizon, so only other states are compared.
        visits = (paths.states[:, 1:, None] == np.arange(mdp.num_states)).sum(1)
        alive = ~mdp.terminal
        np.testing.assert_allclose(
            (first @ visits)[:, alive], found["state"][0][0][:, alive], atol=TOLERANCE
        )
        later = ~paths.done[:, 1:-1]
        for k, r in enumerate(mdp.reward_values):
            if r != 0:
                seen = (later & (np.abs(paths.rewards[:, 1:] - r) < 1e-9)).sum(1)
                np.testing.assert_allclose(
                    first @ seen, found["reward"][0][0, :, k], atol=TOLERANCE
                )
        support, units = exact.return_support(mdp)
        returns = exact.return_distribution(mdp, jnp.asarray(policy), support, units)[0]
        index = np.abs(paths.rewards.sum(1)[:, None] - support).argmin(1)
        brute = np.stack([np.bincount(index, weights=f, minlength=len(support)) for f in first])
        np.testing.assert_allclose(returns, brute, atol=TOLERANCE)


@jax.jit
def all_tables(mdp, logits):
    groups = jnp.arange(logits.size, dtype=jnp.int32).reshape(logits.shape) % 2
    policy, found, values = tables(mdp, logits, groups)
    rewards = exact.outcome_rewards(mdp, policy, exact.reward_encoding(mdp))
    return found, values, rewards, exact.state_distributions(mdp, policy)


@FEW
@given(seed=SEEDS)
def test_one_pass_over_ordered_states(seed):
    """It gives what T steps give: also for what terminal states count, several of them, and a horizon
    longer than the episodes."""
    with jax.enable_x64(True):
        random = random_mdp(seed, levels=3, anywhere=True)
        for mdp in (
            two_ends(random).replace(horizon=random.horizon + seed % 3),
            enumerate_mdp(KeyToDoor(length=6), KeyToDoor(length=6).default_params),
        ):
            assert mdp.ordered
            logits = jnp.asarray(random_logits(seed, mdp))
            steps = mdp.replace(ordered=False)
            close = partial(np.testing.assert_allclose, atol=TOLERANCE)
            jax.tree.map(close, all_tables(mdp, logits), all_tables(steps, logits))
            support, units = exact.return_support(mdp)
            returns = [
                exact.return_distribution(m, softmax(logits), support, units) for m in (mdp, steps)
            ]
            close(*returns)


def test_which_states_are_ordered():
    mdp = random_mdp(0, levels=3)
    assert mdp.ordered
    for follows in (1, 2):
        back = mdp.transition.copy()
        back[2, 0] = np.eye(mdp.num_states)[follows]
        assert not is_ordered(back, mdp.terminal)
        with pytest.raises(ValueError, match=r"ordered is True; allowed: False"):
            check_mdp(mdp.replace(transition=back))
    with pytest.raises(ValueError, match=r"horizon=2 is shorter than an episode"):
        check_mdp(mdp.replace(horizon=2))
    swap = np.zeros((3, 1, 3))  # two terminal states that follow on each other
    swap[0, 0, 1] = swap[1, 0, 2] = swap[2, 0, 1] = 1.0
    assert not is_ordered(swap, np.array([False, True, True]))
    assert not enumerate_mdp(Interleaving(2, 1, 1), InterleavingParams(100, 0.05)).ordered


@FEW
@given(seed=SEEDS)
def test_ratios_are_hindsight_over_policy(seed):
    """Spec 10.3: h(a | s, u) counted over all paths, divided by π, is the forward ratio."""
    with jax.enable_x64(True):
        mdp, logits, groups = case(seed)
        policy, found, _ = jax.device_get(tables(mdp, logits, groups))
        paths = enumerate_paths(mdp)
        p = np.asarray(paths.probability(jnp.asarray(policy)))
        alive = ~paths.done[:, :-1]
        here = (paths.states[:, :-1, None] == np.arange(mdp.num_states)) * alive[..., None]
        taken = paths.actions[..., None] == np.arange(mdp.num_actions)
        paid = np.abs(paths.rewards[..., None] - mdp.reward_values) < 1e-9
        # The end, and its reward 0, depend on how long they are counted.
        outcomes = {"state": (here, ~mdp.terminal), "reward": (paid, mdp.reward_values != 0)}
        for name, (has, use) in outcomes.items():
            later = np.cumsum((has * alive[..., None])[:, ::-1], axis=1)[:, ::-1]
            later = np.concatenate([later[:, 1:], np.zeros_like(later[:, :1])], axis=1)
            joint = np.einsum("n,nts,nta,ntu->sau", p, here, taken, later)
            total = joint.sum(1, keepdims=True)
            follows = np.broadcast_to((total > 1e-12) & use, joint.shape)
            assert follows.any()
            h = joint / np.where(total > 0, total, 1)
            ratio = np.asarray(exact.ratio_from_hindsight(h, policy))
            np.testing.assert_allclose(ratio[follows], found[name][1][follows], atol=TOLERANCE)


@settings(max_examples=2, phases=(Phase.explicit, Phase.generate))
@given(seed=SEEDS, states=st.integers(3, 6), actions=st.integers(2, 4))
def test_tables_of_worlds_with_cycles(seed, states, actions):
    """States repeat and episodes start anywhere: with P over the states before the end, visits are
    Σ_k P^k = (I − P)⁻¹, solved for instead of summed."""
    with jax.enable_x64(True):
        mdp = cyclic_mdp(seed, states, actions)
        policy = np.asarray(softmax(jnp.asarray(random_logits(seed, mdp))))
        on = ~mdp.terminal
        kernel = np.einsum("sa,sat->st", policy, mdp.transition)[np.ix_(on, on)]
        visits = np.linalg.inv(np.eye(on.sum()) - kernel)
        paid = mdp.reward_probs @ mdp.reward_values
        v = np.append(visits @ (policy * paid).sum(1)[on], 0.0)

        def value(logits):
            pi = softmax(logits)
            kernel = jnp.einsum("sa,sat->st", pi, mdp.transition)[np.ix_(on, on)]
            v = jnp.linalg.solve(jnp.eye(len(kernel)) - kernel, jnp.sum(pi * paid, axis=1)[on])
            return jnp.asarray(mdp.start)[on] @ v

        @jax.jit
        def run(policy):
            found, logits = exact.values(mdp, policy), jnp.log(policy)
            gradient = exact.expected_gradient(mdp, softmax, logits, found.q)
            return found, exact.successor_counts(mdp, policy), gradient, jax.grad(value)(logits)

        found, counts, gradient, slope = jax.device_get(run(policy))
        np.testing.assert_allclose(found.v, v, atol=TOLERANCE)
        np.testing.assert_allclose(found.q, paid + mdp.transition @ v, atol=TOLERANCE)
        expected = mdp.transition[..., on] @ visits
        np.testing.assert_allclose(counts[..., on], expected, atol=TOLERANCE)
        np.testing.assert_allclose(gradient, slope, atol=TOLERANCE)


def test_a_switch_of_the_treasure_leaves_its_coefficients():
    """Spec 10.4: w depends on which rewards are told apart, not on what they pay."""
    with jax.enable_x64(True):
        env, found = KeyToDoor(length=6, ignore_door=True), []
        for treasure in (0.2, -0.2):
            mdp = enumerate_mdp(env, env.make_params(treasure=(treasure,)))
            policy = softmax(jnp.asarray(random_logits(0, mdp)))
            counts = exact.outcome_counts(mdp, policy, exact.reward_encoding(mdp))
            found.append(np.asarray(exact.contribution_ratio(counts, policy)))
            assert mdp.reward_values[3] == pytest.approx(treasure * 23 / 6)
        np.testing.assert_allclose(found[0], found[1], atol=TOLERANCE)
        assert np.abs(found[0][0, :, 3] - 1).min() > 0.1


@FEW
@given(seed=SEEDS)
def test_mixing_rule(seed):
    """w(s, a, r) = Σ_s' p(s' | s, r) w(s, a, s') where the later state predicts the reward's
    distribution (policy fixed): state-based coefficients mix into reward-based ones."""
    with jax.enable_x64(True):
        mdp, logits, groups = case(seed)
        policy, found, _ = jax.device_get(tables(mdp, logits, groups))
        counts, ratio = found["state"]
        emitted = np.einsum("sa,sar->sr", policy, mdp.reward_probs)
        total = np.einsum("sa,sak->sk", policy, counts)
        joint = total[:, :, None] * emitted[None]  # [S, S', R]
        norm = joint.sum(1)
        mixed = np.einsum("sak,skr->sar", ratio, joint)
        mixed = np.where(norm[:, None] > 0, mixed / np.where(norm > 0, norm, 1)[:, None], 1)
        np.testing.assert_allclose(mixed, found["reward"][1], atol=TOLERANCE)


@FEW
@given(seed=SEEDS)
def test_relabelling_and_rescaling_change_nothing(seed):
    with jax.enable_x64(True):
        mdp, logits, groups = case(seed)
        _, found, _ = jax.device_get(tables(mdp, logits, groups))
        order = np.array([2, 0, 1])
        other = mdp.replace(
            reward_probs=mdp.reward_probs[:, :, order],
            reward_values=-3.0 * mdp.reward_values[order],
        )
        _, again, _ = jax.device_get(tables(other, logits, groups))
        np.testing.assert_allclose(
            again["reward"][1], found["reward"][1][:, :, order], atol=TOLERANCE
        )
        np.testing.assert_allclose(again["state"][1], found["state"][1], atol=TOLERANCE)


def test_deterministic_policies():
    """w = 0 for the chosen action; the forward ratio is defined where π is 0, the hindsight one is an
    error."""
    with jax.enable_x64(True):
        mdp, _, _ = case(1)
        policy = jnp.asarray(np.eye(2)[np.arange(mdp.num_states) % 2])
        counts = exact.outcome_counts(mdp, policy, exact.state_encoding(mdp))
        ratio = np.asarray(exact.contribution_ratio(counts, policy))
        assert np.isfinite(ratio).all()
        chosen = ratio[np.arange(mdp.num_states), np.arange(mdp.num_states) % 2]
        np.testing.assert_allclose(chosen, 1, atol=TOLERANCE)
        with pytest.raises(ValueError, match="policy has a probability of 0"):
            exact.ratio_from_hindsight(ratio, policy)


@pytest.mark.parametrize("ignore_door", [False, True])
def test_key_to_door_contributions(ignore_door):
    """Spec 10.6 and 10.12: only the key contributes to the treasure; the first decision's SNR."""
    with jax.enable_x64(True):
        env = KeyToDoor(length=13, ignore_door=ignore_door)
        mdp = enumerate_mdp(env, env.default_params)
        # A policy that does not look at the number of keys: with one that does, having the key
        # would change how many apples are picked.
        seen = mdp.observations[:, :7]
        policy = softmax(jnp.asarray(seen @ np.random.default_rng(4).normal(size=(7, 4))))
        reward = exact.reward_encoding(mdp)
        ratio = exact.contribution_ratio(exact.outcome_counts(mdp, policy, reward), policy)
        w = np.asarray(ratio)[0] - 1  # [A, R], rewards 0, 0.1, 0.9, 0.2
        np.testing.assert_allclose(w[:, 1:3], 0, atol=TOLERANCE)
        np.testing.assert_allclose(w[0, 3], 1 / float(policy[0, 0]) - 1, atol=TOLERANCE)
        np.testing.assert_allclose(w[1:, 3], -1, atol=TOLERANCE)
        by_mean = exact.mean_reward_encoding(mdp)
        ratio = exact.contribution_ratio(exact.outcome_counts(mdp, policy, by_mean), policy)
        w = np.asarray(ratio)[0] - 1  # mean rewards 0, 0.2, 0.5
        np.testing.assert_allclose(w[:, 2], 0, atol=TOLERANCE)
        np.testing.assert_allclose(w[0, 1], 1 / float(policy[0, 0]) - 1, atol=TOLERANCE)
        state = exact.state_encoding(mdp)
        counts = exact.outcome_counts(mdp, policy, state)
        w = np.asarray(exact.contribution_ratio(counts, policy))[0] - 1
        reached = np.asarray(counts)[0].sum(0) > 0
        assert (np.abs(w).max(0)[reached] > 0.1).all()  # spurious for every later state


def test_first_decision_snr():
    """Exact COCOA-reward at t = 0: normalised variance (1 − p)/p with p the treasure's probability."""
    with jax.enable_x64(True):
        for ignore_door, p in ((False, 1 / 16), (True, 1 / 4)):
            env = KeyToDoor(length=6, ignore_door=ignore_door)
            mdp = enumerate_mdp(env, env.default_params)
            policy = jnp.full((mdp.num_states, 4), 0.25)
            paths = enumerate_paths(mdp)
            weight = np.asarray(paths.probability(policy))
            treasure = np.abs(paths.rewards[:, -1]) > 0
            assert weight @ treasure == pytest.approx(p, abs=TOLERANCE)
            reward = exact.reward_encoding(mdp)
            ratio = exact.contribution_ratio(exact.outcome_counts(mdp, policy, reward), policy)
            w = np.asarray(ratio)[0] - 1
            r = np.abs(paths.rewards[..., None] - mdp.reward_values).argmin(-1)
            table = (w.T[r][:, 1:] * paths.rewards[:, 1:, None]).sum(1)
            single = 0.25 * (table - table.mean(1, keepdims=True))  # softmax Jacobian, uniform
            g = weight @ single
            variance = weight @ ((single - g) ** 2).sum(1) / (g**2).sum()
            assert variance == pytest.approx((1 - p) / p, rel=1e-9)


@FEW
@given(seed=SEEDS)
def test_occurrence_gradient(seed):
    """Theorem 4: ∇ of the expected count of u' from s is E Σ_a ∇π(a | S'') w(S'', a, u') O(u', S'')
    over the states S'' on the way, O the count of u' from S''."""
    with jax.enable_x64(True):
        mdp, logits, _ = case(seed)
        target = 3
        encoding = exact.state_encoding(mdp)

        def count(logits):
            policy = softmax(logits)
            return policy[0] @ exact.outcome_counts(mdp, policy, encoding)[0, :, target]

        policy = softmax(logits)
        counts = exact.outcome_counts(mdp, policy, encoding)
        w = exact.contribution_ratio(counts, policy)[:, :, target] - 1.0
        expected = jnp.sum(policy * counts[:, :, target], axis=1, keepdims=True)
        found = exact.expected_gradient(mdp, softmax, logits, w * expected)
        truth = jax.grad(count)(logits)
        np.testing.assert_allclose(found, truth, atol=TOLERANCE)


def test_return_lattice():
    mdp = random_mdp(0)
    bad = mdp.replace(reward_values=np.array([0.0, 1.0, np.sqrt(2)]))
    with pytest.raises(ValueError, match="no multiples of one number"):
        exact.return_support(bad)
    with pytest.raises(ValueError, match="table has shape"):
        exact.table_encoding(mdp, np.zeros(3))
    # Rewards that all else tells apart are not merged.
    with pytest.raises(ValueError, match="no multiples of one number"):
        exact.return_support(mdp.replace(reward_values=np.array([0.0, 1.0, 1.0009])))
    _, units = exact.return_support(mdp.replace(reward_values=np.array([0.0, 1.0, 1.01])))
    np.testing.assert_array_equal(units, [0, 100, 101])
    # What float32 makes of 0.1 and 0.9 adds up over the horizon, and is forgiven.
    rounded = np.array([0.0, 0.1, 0.9], np.float32).astype(float)
    _, units = exact.return_support(mdp.replace(reward_values=rounded, horizon=103))
    np.testing.assert_array_equal(units, [0, 1, 9])
    support, units = exact.return_support(mdp)
    np.testing.assert_array_equal(units, [0, 1, -2])
    assert support.min() >= -4
    assert support.max() <= 2


def test_no_product_rounds_its_factors():
    """Accelerators may shorten the factors of float32 products (TF32): the tables forbid it."""
    mdp = random_mdp(0, levels=3)
    logits = jnp.asarray(random_logits(0, mdp), jnp.float32)
    mdp = mdp.astype(jnp.float32)
    support, units = exact.return_support(random_mdp(0, levels=3))

    def everything(logits):
        policy = softmax(logits)
        encoding = exact.reward_encoding(mdp)
        counts = exact.outcome_counts(mdp, policy, encoding)
        ratio = exact.contribution_ratio(counts, policy)
        returns = exact.return_distribution(mdp, policy, support, units)
        z = jnp.asarray(support, jnp.float32)
        of_return = exact.contribution_ratio(returns, policy)
        advantage = exact.advantage_contribution(mdp, policy, encoding, ratio)
        return (
            exact.successor_counts(mdp, policy),
            exact.expected_gradient(mdp, softmax, logits, advantage),
            exact.advantage_counterfactual_return(returns, policy, z, of_return),
            exact.advantage_hca_return(returns, z, of_return),
            exact.values(mdp, policy),
        )

    products = [
        equation.params["precision"]
        for equation in all_equations(jax.make_jaxpr(everything)(logits))
        if equation.primitive.name == "dot_general"
    ]
    assert len(products) > 10
    highest = jax.lax.Precision.HIGHEST
    assert all(precision in (highest, (highest, highest)) for precision in products)
