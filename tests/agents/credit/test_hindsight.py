"""Learned coefficients: outcomes, masks, losses and what they converge to (spec 10.19 to 10.23)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.credit import CreditConfig, WorldSpec, estimators, hindsight, make_model
from agents.credit.features import distinct_transitions, features, train_features
from agents.credit.networks import mixed_log_policy
from agents.credit.successor import successor_loss
from agents.credit.targets import lambda_targets
from envs.credit import exact
from tests.agents.credit.paths import trajectories, trajectory
from tests.envs.credit.mdps import random_logits, random_mdp, softmax


def spec(values=(0.0, 1.0, 2.0)):
    return WorldSpec(obs_dim=4, num_actions=3, reward_values=values)


def test_pair_counts_and_masks():
    t = trajectory([0.0, 1.0, 0.0, 2.0, 5.0], done_at=4)
    outcomes = hindsight.reward_outcomes(t, jnp.array([1.0, 2.0, 5.0]))
    counts = hindsight.pair_counts(t, outcomes, mask_zero_reward=True)
    # By hand: later alive steps with reward 1, 2 and 5 (which comes after the end).
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    every = hindsight.pair_counts(t, hindsight.state_outcomes(t), mask_zero_reward=False)
    np.testing.assert_array_equal(every, np.triu(np.ones((5, 5)), 1) * [1, 1, 1, 1, 0])
    masked = hindsight.pair_counts(t, hindsight.state_outcomes(t), mask_zero_reward=True)
    np.testing.assert_array_equal(masked, np.triu(np.ones((5, 5)), 1) * [0, 1, 0, 1, 0])


def test_losses_are_means_over_pairs():
    t = trajectory([0.0, 1.0, 0.0, 2.0, 0.0])
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(5, 5, 3)), jnp.float32)
    counts = hindsight.pair_counts(t, hindsight.state_outcomes(t), mask_zero_reward=True)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5) if t.reward[j] != 0]
    policy = np.exp(t.log_policy)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    entropy, contrast = 0.0, 0.0
    for i, j in pairs:
        h = policy[i] * np.exp(x[i, j])
        entropy -= np.log(h[t.action[i]] / h.sum()) / len(pairs)
        s = sigmoid(np.asarray(x[i, j]))
        contrast -= (np.log(s[t.action[i]]) + policy[i] @ np.log(1 - s)) / len(pairs)
    assert float(
        hindsight.classification_loss(x, t.log_policy, hindsight.pair_weights(t, counts))
    ) == pytest.approx(entropy, rel=1e-5)
    assert float(
        hindsight.contrastive_loss(x, t.log_policy, hindsight.pair_weights(t, counts))
    ) == pytest.approx(contrast, rel=1e-5)
    nothing = trajectory(np.zeros(5))
    counts = hindsight.pair_counts(nothing, hindsight.state_outcomes(nothing), True)
    weights = hindsight.pair_weights(nothing, counts)
    loss, gradient = jax.value_and_grad(hindsight.classification_loss)(x, t.log_policy, weights)
    assert float(loss) == 0.0
    assert np.abs(gradient).max() == 0.0


def test_ratios():
    t = trajectory(np.zeros(5))
    x = jnp.asarray(np.random.default_rng(2).normal(size=(5, 2, 3)) * 4, jnp.float32)
    policy = np.exp(t.log_policy)[:, None]
    ratio = hindsight.classification_ratio(x, t.log_policy)
    np.testing.assert_allclose((policy * (ratio - 1)).sum(-1), 0, atol=1e-5)
    clipped = hindsight.contrastive_ratio(x, t.log_policy, clip=True)
    assert (clipped <= 1 / policy * (1 + 1e-5)).all()
    free = hindsight.contrastive_ratio(x, t.log_policy, clip=False)
    np.testing.assert_allclose(free, np.exp(x), rtol=1e-5)
    assert (free > clipped).any()


@pytest.mark.parametrize("lowest", [-200.0, -np.inf])
def test_actions_of_no_probability(lowest):
    """1/π overflows float32, or is infinite: nothing that an untaken action is multiplied by counts."""
    t = trajectory([1.0, 0.0, 2.0], steps=3)
    log_policy = jnp.array([[np.log(0.5), np.log(0.5), lowest]] * 3, jnp.float32)
    t = t.replace(action=jnp.array([0, 1, 0], jnp.int32), log_policy=log_policy)
    outcomes = hindsight.reward_outcomes(t, jnp.array([1.0, 2.0]))
    params = hindsight.hypernetwork_init(jax.random.key(0), 4, 2, 3, width=8)
    counts = hindsight.pair_counts(t, outcomes, mask_zero_reward=True)

    def loss(params):
        x = hindsight.hypernetwork(params, t.obs[:-1], outcomes.vectors, log_policy)
        both = (
            hindsight.classification_loss(x, t.log_policy, hindsight.pair_weights(t, counts)),
            successor_loss(x, x[..., 0], t, outcomes.member, 0.9),
        )
        return sum(both), x

    (value, x), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, x, gradient)))
    np.testing.assert_array_equal(estimators.reinforce(t), [[6, 0, 0], [0, 4, 0], [4, 0, 0]])
    for ratio in (
        hindsight.classification_ratio(x, log_policy),
        hindsight.contrastive_ratio(x, log_policy, clip=True),
    ):
        assert np.isfinite(estimators.cocoa(t, ratio - 1.0, outcomes.member)).all()
        if np.isinf(lowest):
            np.testing.assert_array_equal(ratio[..., 2], 1.0)
    x = np.zeros((3, 1, 3))
    zero = hindsight.classification_ratio(jnp.asarray(x), log_policy)
    np.testing.assert_allclose(zero, 1.0, rtol=1e-5)
    summed = jnp.ones((3, 3))
    drawn = estimators.sample_actions(jax.random.key(0), summed, log_policy, 3)
    np.testing.assert_array_equal(drawn[:, 2], 0.0)
    np.testing.assert_allclose(drawn.sum(1), 2.0, rtol=1e-5)


def test_rewards_that_are_not_listed_are_counted():
    t = trajectory([0.0, 1.0, 0.3, 2.0, 0.7], done_at=4)
    outcomes = hindsight.reward_outcomes(t, jnp.array([1.0, 2.0]))
    assert int(hindsight.unmatched(t, outcomes)) == 1  # 0.3; 0.7 comes after the end


def test_distinct_codes():
    t = trajectory([1.0, 1.0, 0.0, 2.0, 1.0])
    bits = jnp.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 0, 1], [0, 0, 0]], jnp.float32)
    found = hindsight.code_outcomes(t, bits, limit=4, mask_zero_reward=True)
    assert int(hindsight.unmatched(t, found)) == 0
    # Steps 0 and 3 share an outcome, step 2 pays nothing, and each outcome shows its own vector.
    np.testing.assert_array_equal(found.member[0], found.member[3])
    assert float(found.member[2].sum()) == 0
    assert int((np.asarray(found.member).sum(0) > 0).sum()) == 3
    for step in (0, 1, 3, 4):
        np.testing.assert_array_equal(np.asarray(found.member)[step] @ found.vectors, bits[step])
    few = hindsight.code_outcomes(t, bits, limit=2, mask_zero_reward=True)
    assert int(hindsight.unmatched(t, few)) == 1


def test_states_that_pay_are_the_outcomes():
    t = trajectory([0.0, 1.0, 0.0, 2.0, 5.0], done_at=4)
    found = hindsight.state_outcomes(t, mask_zero_reward=True)
    np.testing.assert_array_equal(found.member, np.diag([0, 1, 0, 1, 0]))
    # Others repeat one of them, so that each is evaluated once.
    np.testing.assert_array_equal(found.vectors, t.obs[np.array([1, 1, 1, 3, 1])])
    every = hindsight.state_outcomes(t)
    np.testing.assert_array_equal(every.member, np.eye(5))
    np.testing.assert_array_equal(every.vectors, t.obs[:-1])


def test_hypernetwork_by_its_definition():
    """x = b + G φ of every pair alone: b and G are differences of rectified outputs of one hidden layer."""
    rng = np.random.default_rng(3)
    params = hindsight.hypernetwork_init(jax.random.key(2), 4, 2, 3, width=8)
    params = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype("f4"), params)
    obs, vectors = rng.normal(size=(6, 5, 4)), rng.normal(size=(6, 2, 2))
    policy = rng.dirichlet(np.ones(3), size=(6, 5))
    net = lambda o, v, p: hindsight.hypernetwork(  # noqa: E731
        params, *(jnp.asarray(x, jnp.float32) for x in (o, v, np.log(p)))
    )
    found = np.asarray(net(obs, vectors, policy))
    p = jax.tree.map(np.asarray, params)
    hidden, heads = p["hidden"], p["heads"]
    gap = lambda y: np.subtract(*np.split(np.maximum(y, 0), 2))  # noqa: E731
    for i, t, k in np.ndindex(found.shape[:3]):
        z = obs[i, t] @ hidden["obs"] + vectors[i, k] @ hidden["outcome"] + hidden["b"]
        y = heads["w"] @ np.maximum(z, 0) + heads["b"]
        phi = np.concatenate([np.log(policy[i, t]), np.log(1 - policy[i, t])])
        x = gap(y[:6]) + gap(y[6:]).reshape(3, 6) @ phi
        np.testing.assert_allclose(found[i, t, k], x, rtol=1e-4, atol=1e-4)
    for i in range(6):  # more axes in front do not mix
        np.testing.assert_allclose(net(obs[i], vectors[i], policy[i]), found[i], atol=1e-5)


def test_reward_classes_cost_what_pairs_give():
    """T × K with reward classes gives the table of T × T pairs of the same network."""
    t = trajectory([0.0, 1.0, 2.0, 1.0, 2.0])
    values = jnp.array([1.0, 2.0])
    params = hindsight.hypernetwork_init(jax.random.key(0), 4, 2, 3, width=8)
    outcomes = hindsight.reward_outcomes(t, values)
    by_class = hindsight.hypernetwork(params, t.obs[:-1], outcomes.vectors, t.log_policy)
    vectors = outcomes.member @ outcomes.vectors  # what each step holds, [T, 2]
    by_step = hindsight.hypernetwork(params, t.obs[:-1], vectors, t.log_policy)
    each = hindsight.hypernetwork(
        params, t.obs[:-1], jnp.broadcast_to(vectors[None], (5, 5, 2)), t.log_policy
    )
    np.testing.assert_allclose(by_step, each, rtol=1e-5)
    w = lambda x: hindsight.classification_ratio(x, t.log_policy) - 1.0  # noqa: E731
    table = estimators.cocoa(t, w(by_class), outcomes.member)
    pairs = estimators.cocoa(t, w(by_step), jnp.eye(5))
    np.testing.assert_allclose(table, pairs, rtol=1e-4, atol=1e-5)


def test_zero_network_credits_immediate_rewards_only():
    model = make_model(CreditConfig(hindsight_width=4), spec())
    t = trajectory([1.0, 0.0, 2.0, 1.0, 0.0])
    state = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    table = model.table(state, t, jax.random.key(0))
    np.testing.assert_allclose(table, estimators.on_taken_action(t, t.reward), atol=1e-6)


@pytest.mark.parametrize("loss", ["classification", "contrastive"])
def test_optimum_is_the_exact_ratio(loss):
    """With one logit per (s, u, a), pairs weighted as they occur, both losses have the exact ratio as
    their minimum."""
    with jax.enable_x64(True):
        mdp = random_mdp(3, levels=3)
        policy = softmax(jnp.asarray(random_logits(3, mdp)))
        batch, states, probability = trajectories(mdp, policy)
        values = jnp.asarray(mdp.reward_values)
        outcomes = jax.vmap(lambda t: hindsight.reward_outcomes(t, values))(batch)
        counts = jax.vmap(lambda t, o: hindsight.pair_counts(t, o, True))(batch, outcomes)
        pairs = counts.sum((1, 2))
        function = getattr(hindsight, f"{loss}_loss")

        def total(logits):
            losses = jax.vmap(
                lambda t, s, c: function(logits[s], t.log_policy, hindsight.pair_weights(t, c))
            )(batch, states, counts)
            # Pooled over the batch, so that pairs have their true frequencies.
            return jnp.sum(probability * pairs * losses)

        start = jnp.zeros((mdp.num_states, 3, mdp.num_actions))
        optimizer = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(total)

        def step(carry, _):
            x, state = carry
            value, gradient = value_and_grad(x, state=state)
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                updates, state = optimizer.update(
                    gradient, state, x, value=value, grad=gradient, value_fn=total
                )
            return (optax.apply_updates(x, updates), state), value

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            run = jax.jit(
                lambda: jax.lax.scan(step, (start, optimizer.init(start)), None, length=120)
            )
            (x, _), _ = run()
        ratio = (
            hindsight.classification_ratio(x, jnp.log(policy))
            if loss == "classification"
            else hindsight.contrastive_ratio(x, jnp.log(policy), clip=False)
        )
        encoding = exact.reward_encoding(mdp)
        counts = exact.outcome_counts(mdp, policy, encoding)
        truth = jnp.swapaxes(exact.contribution_ratio(counts, policy), 1, 2)
        visited = np.asarray(exact.state_distributions(mdp, policy)) > 1e-3
        total_counts = np.einsum("sa,sak->sk", policy, counts)
        for s in np.flatnonzero(visited):
            for k in (1, 2):
                if total_counts[s, k] > 1e-3:
                    np.testing.assert_allclose(ratio[s, k], truth[s, k], atol=2e-3)


def test_lambda_targets():
    """Worked out by hand: λ = 0.5, values 10, 20, 30, a termination, a cut, and what follows the end."""
    t = trajectory([1.0, 2.0, 3.0], steps=3)
    values = jnp.array([10.0, 20.0, 30.0])
    np.testing.assert_allclose(lambda_targets(t, values, 0.5), [12.75, 13.5, 3.0])
    cut = t.replace(terminated=jnp.zeros(3, bool))
    np.testing.assert_allclose(lambda_targets(cut, values, 0.0), [11.0, 22.0, 33.0])
    np.testing.assert_allclose(lambda_targets(cut, values, 1.0), [36.0, 35.0, 33.0])
    early = trajectory([1.0, 2.0, 0.0], steps=3, done_at=2)
    np.testing.assert_allclose(lambda_targets(early, values, 1.0)[:2], [3.0, 2.0])


def test_mixed_policy():
    logits = jnp.array([[100.0, 0.0, 0.0, 0.0]])
    log_policy = mixed_log_policy(logits, 0.05)
    np.testing.assert_allclose(jnp.exp(log_policy), [[0.9625, 0.0125, 0.0125, 0.0125]], rtol=1e-5)
    np.testing.assert_allclose(mixed_log_policy(logits, 0.0), jax.nn.log_softmax(logits))
    gradient = jax.grad(lambda x: mixed_log_policy(x, 0.05)[0, 1])(jnp.zeros((1, 4)))
    assert float(gradient[0, 1]) == pytest.approx(0.95 * 0.75, rel=1e-5)


def test_features_find_the_rewarding_entry():
    """Of four binary entries one pays under one action: all others are pruned."""
    rng = np.random.default_rng(0)
    obs = rng.integers(2, size=(400, 4)).astype(np.float32)
    action = rng.integers(2, size=400)
    reward = (obs[:, 2] * (action == 1)).astype(np.float32)
    data = distinct_transitions(obs, action, reward, size=40)
    assert data["weight"].sum() == pytest.approx(1.0)
    assert (data["weight"][32:] == 0).all()
    settings = dict(
        backbone="mask",
        width=1,
        threshold=0.05,
        binary=False,
        steps=1500,
        learning_rate=1e-2,
        shrink_backbone=3e-3,
        shrink_readout=3e-4,
        actions=2,
    )
    params, _ = jax.jit(lambda k: train_features(k, data, **settings))(jax.random.key(0))
    on = features(params, jnp.eye(4), jnp.ones(4, jnp.int32), 0.05, False) > 0
    off = features(params, jnp.eye(4), jnp.zeros(4, jnp.int32), 0.05, False) > 0
    np.testing.assert_array_equal(np.asarray(on).sum(0) > 0, [False, False, True, False])
    assert not np.asarray(off).any()
    np.testing.assert_array_equal(
        hindsight.code_outcomes(trajectory(np.ones(5)), jnp.ones((5, 3)), 4, True).member.sum(0),
        [5, 0, 0, 0],
    )
