"""Coefficients from successor counts: targets, their fixed point, and what is learned from samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, given, settings

from agents.credit import CreditConfig, WorldSpec, hindsight, make_model
from agents.credit.successor import has_target, successor_loss, successor_targets
from agents.credit.trajectory import rollouts
from envs.credit import KeyToDoor, enumerate_mdp, exact
from tests.agents.credit.paths import mean, trajectories, trajectory
from tests.envs.credit.mdps import SEEDS, random_logits, random_mdp, softmax

TOLERANCE = 1e-9


@pytest.mark.parametrize(
    ("end", "terminated", "targets", "known"),
    [
        (4, True, [14.5, 19.0, 16.0, 0.0], [1, 1, 1, 1]),
        (4, False, [18.25, 26.5, 31.0], [1, 1, 1, 0]),
        (2, True, [5.0, 0.0], [1, 1, 0, 0]),
        (3, False, [15.5, 21.0], [1, 1, 0, 0]),
        (5, False, [18.25, 26.5, 31.0], [1, 1, 1, 0]),  # `done` nowhere
    ],
)
def test_targets(end, terminated, targets, known):
    """Worked out by hand: λ = 0.5; ends and cuts, after the last step and before."""
    t = trajectory([1.0, 0.0, 1.0, 1.0], steps=4, done_at=end)
    if not terminated:
        t = t.replace(terminated=jnp.zeros(4, bool))
    member = hindsight.reward_outcomes(t, jnp.array([1.0])).member
    value = jnp.array([[5.0], [10.0], [20.0], [30.0]])
    found = successor_targets(t, member, value, 0.5)[:, 0]
    np.testing.assert_allclose(found[: len(targets)], targets)
    np.testing.assert_array_equal(has_target(t), known)


def exact_counts(mdp, policy):
    """M of the rewards other than 0, as x is ordered: [S, K, A]. (That of 0 goes on after the end.)"""
    counts = exact.outcome_counts(mdp, policy, exact.reward_encoding(mdp))
    return jnp.swapaxes(counts, 1, 2)[:, 1:]


def members(mdp, batch):
    values = jnp.asarray(mdp.reward_values)[1:]
    return jax.vmap(lambda t: hindsight.reward_outcomes(t, values))(batch).member


@jax.jit
def at_exact_counts(mdp, policy, batch, states, probability):
    counts, member = exact_counts(mdp, policy), members(mdp, batch)
    x = jnp.log(jnp.maximum(counts, 1e-300))
    value = jnp.einsum("ska,sa->sk", jnp.exp(x), policy)
    pairs = jnp.einsum("nts,nta,nt->ntsa", jax.nn.one_hot(states, len(x)), batch.taken, batch.alive)
    visits = mean(probability, pairs.sum(1))
    means, gradients = [], []
    for lam in (0.0, 0.6, 1.0):
        targets = jax.vmap(lambda t, m, v, lam=lam: successor_targets(t, m, v, lam))(
            batch, member, value[states]
        )
        sums = jnp.einsum("n,ntsa,ntk->ska", probability, pairs, targets)
        means.append(sums / visits[:, None])

        def loss(x, level, lam=lam):
            one = lambda t, s, m: successor_loss(x[s], level[s], t, m, lam)  # noqa: E731
            return probability @ jax.vmap(one)(batch, states, member)

        gradients.append(jax.grad(loss, argnums=(0, 1))(x, jnp.log(value)))
    later = jax.vmap(
        lambda t, m: hindsight.pair_counts(t, hindsight.Outcomes(jnp.eye(2), m), False)
    )(batch, member)
    ratio = hindsight.classification_ratio(x, jnp.log(policy))
    truth = exact.contribution_ratio(jnp.swapaxes(counts, 1, 2), policy)
    return counts, visits, means, gradients, (targets, later), (ratio, truth)


@settings(max_examples=4, phases=(Phase.explicit, Phase.generate))
@given(seed=SEEDS)
def test_exact_counts_are_the_fixed_point(seed):
    """For any λ the targets of exact counts have them as their mean, over all trajectories, and the loss
    has no gradient there, though episodes differ in length. λ = 1 counts what came. The coefficients of
    exact log-counts are the exact ones, whose mean under the policy is 0."""
    with jax.enable_x64(True):
        mdp = random_mdp(seed, levels=3, anywhere=True)
        policy = softmax(jnp.asarray(random_logits(seed, mdp)))
        batch, states, probability = trajectories(mdp, policy, size=1536)
        counts, visits, means, gradients, sampled, ratios = at_exact_counts(
            mdp, policy, batch, states, probability
        )
        seen = np.asarray(visits).min(1) > 0
        np.testing.assert_array_equal(seen, ~mdp.terminal)
        for found, gradient in zip(means, gradients, strict=True):
            np.testing.assert_allclose(found[seen], counts[seen], atol=TOLERANCE)
            for of_table in gradient:
                np.testing.assert_allclose(of_table, 0, atol=TOLERANCE)
        assert np.asarray(counts).max() > 0.1
        targets, later = sampled
        alive = np.asarray(batch.alive) > 0
        np.testing.assert_allclose(targets[alive], later[alive], atol=TOLERANCE)
        ratio, truth = ratios
        np.testing.assert_allclose(jnp.swapaxes(ratio, 1, 2), truth, atol=TOLERANCE)
        np.testing.assert_allclose(jnp.einsum("sa,ska->sk", policy, ratio - 1.0), 0, atol=TOLERANCE)


def test_tabular_counts_converge():
    """λ = 0, where all that the first step knows of the last comes through the counts of those between."""
    with jax.enable_x64(True):
        mdp = random_mdp(3, levels=3, anywhere=True)
        policy = softmax(jnp.asarray(random_logits(3, mdp)))
        batch, states, probability = trajectories(mdp, policy, size=1)
        steps, truth = 300, exact_counts(mdp, policy)
        optimizer = optax.adam(optax.linear_schedule(0.2, 0.0, steps))

        @jax.jit
        def run(x):
            member = members(mdp, batch)

            def loss(tables):
                x, level = tables
                one = lambda t, s, m: successor_loss(x[s], level[s], t, m, 0.0)  # noqa: E731
                return probability @ jax.vmap(one)(batch, states, member)

            def step(carry, _):
                tables, state = carry
                updates, state = optimizer.update(jax.grad(loss)(tables), state)
                return (optax.apply_updates(tables, updates), state), None

            tables = x, x[..., 0]
            return jax.lax.scan(step, (tables, optimizer.init(tables)), None, length=steps)[0][0]

        with jax.numpy_dtype_promotion("standard"):
            x, level = run(jnp.zeros_like(truth))
        ratio = hindsight.classification_ratio(x, jnp.log(policy))
        counts = np.exp(level)[..., None] * ratio
        np.testing.assert_allclose(counts[:-1], truth[:-1], atol=0.01)
        wanted = exact.contribution_ratio(jnp.swapaxes(truth, 1, 2), policy)
        often = np.einsum("sa,ska->sk", policy, truth) > 0.1
        assert often.sum() > 4
        np.testing.assert_allclose(
            np.asarray(ratio)[often], np.swapaxes(wanted, 1, 2)[often], atol=0.05
        )


def test_a_network_learns_the_coefficients_from_samples():
    """Key-to-door, uniform policy: what the model credits at the key on average, all of it the treasure's."""
    env = KeyToDoor(length=5, ignore_door=True)
    mdp = enumerate_mdp(env, env.default_params).astype(jnp.float32)
    spec = WorldSpec(9, 4, env.reward_values(env.default_params))
    config = CreditConfig(hindsight_loss="successor", hindsight_width=16, model_rate=1e-2)
    model = make_model(config, spec)
    uniform = lambda obs: jnp.full((*obs.shape[:-1], 4), jnp.log(0.25))  # noqa: E731
    policy = jnp.full((mdp.num_states, 4), 0.25)
    key_state, steps = int(np.argmax(mdp.start)), 200

    @jax.jit
    def run(key):
        def step(state, key):
            batch, _ = rollouts(env, env.default_params, uniform, key, 5, 32)
            state, metrics = model.update(state, batch, uniform, key)
            return state, (model.expected_advantage(state, mdp, policy)[key_state], metrics)

        return jax.lax.scan(step, model.init(key), jax.random.split(key, steps))[1]

    found, metrics = run(jax.random.key(0))
    pays = 0.2 * 23 / 5 * (np.eye(4)[0] - 0.25)  # picking up the key, on average over later actions
    np.testing.assert_allclose(found[steps // 2 :].mean(0), pays, atol=0.1)
    assert np.isfinite(metrics["model_loss"]).all()
    assert (np.asarray(metrics["unmatched_rewards"]) == 0).all()
