"""The pool around the shaping POMDP, with tabular policies."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive, population
from agents.learning_aware.lola import LolaSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.policies import Policy, tabular
from tests.agents.learning_aware.pools import FAST, GAME, POOL, train


@pytest.mark.parametrize("algorithm", ["reinforce", "a2c", "ppo"])
def test_an_agent_learns_to_exploit_a_cooperator(algorithm):
    objective = ObjectiveSettings(
        algorithm, Optimizer(learning_rate=0.1), centre="per_step", reward_scale=0.1
    )
    cfg = replace(POOL, objective=objective, batch=8)
    _, metrics = train(cfg, 40, tabular(5, 2, value_scale=1.0))
    assert metrics["naive/ego_reward"][-1] > 1.8


def surely(action):
    """Always plays `action`, whatever its parameter; but its scores are always ½ or −½, so steps can be worked out."""

    def step(params, obs, carry):
        logits = jnp.array([60.0, 0.0]) if action == 0 else jnp.array([-60.0, 0.0])
        return carry, jnp.broadcast_to(logits, (obs.shape[0], 2)), jnp.zeros(obs.shape)

    def parallel(params, obs, reset):
        logits = jnp.stack([params["logit"], jnp.zeros(())])
        return jnp.broadcast_to(logits, (*obs.shape, 2)), jnp.zeros(obs.shape)

    return Policy(lambda key: {"logit": jnp.zeros(())}, lambda batch: (), step, parallel)


@pytest.mark.parametrize(
    ("algorithm", "naive_episodes"), [("reinforce", 0), ("reinforce", 3), ("a2c", 2), ("ppo", 2)]
)
def test_shares_hold_however_the_meta_episodes_are_split(algorithm, naive_episodes):
    """Cooperators against naive defectors (−1 a step) and each other (+1): one step, by hand."""
    objective = ObjectiveSettings(algorithm, Optimizer("sgd", 1.0), epochs=1, minibatches=1)
    cfg = replace(POOL, num_meta=2, p_naive=0.25, p_meta=0.75, meta_episodes=4, objective=objective)
    cfg = replace(cfg, naive_episodes=naive_episodes)
    state, metrics = train(cfg, 1, surely(0), naive.frozen(surely(1)))
    assert (metrics["naive/ego_reward"], metrics["meta/ego_reward"]) == (-1, 1)
    # Two inner episodes of three steps. COALA, times B = 4: C + 4 F; batch-unaware: C + F.
    against_naive = -(3 + 2 + 1) - 3 * 4 * 3 - (3 + 2 + 1)
    against_meta = (3 + 2 + 1) + 3 * 3 + (3 + 2 + 1)
    expected = 0.5 * (0.25 * against_naive + 0.75 * against_meta) / 6
    np.testing.assert_allclose(state.params["logit"], [expected] * 2, rtol=1e-5)


def test_either_kind_of_co_player_is_centred_by_itself():
    """A mixed pool's step is what pools of one kind would make, by their shares: neither mean reaches the other kind."""
    objective = replace(FAST, optimizer=Optimizer("sgd", 1.0), centre="all")
    pool = replace(POOL, num_meta=2, objective=objective)
    policy = tabular(5, 2, noise=1.0)
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())

    # Three of either kind, and the same keys in every pool, so the same meta-episodes.
    def step(p_naive, p_meta, **episodes):
        cfg = replace(pool, p_naive=p_naive, p_meta=p_meta, **episodes)
        start = population.init(cfg, policy, learner, jax.random.key(0))
        after, _ = jax.jit(population.make_update(cfg, GAME, policy, learner))(start)
        return after.params["logits"] - start.params["logits"]

    both = step(0.25, 0.75, meta_episodes=6, naive_episodes=3)
    against_naive = step(1.0, 0.0, meta_episodes=3)
    against_meta = step(0.0, 1.0, meta_episodes=3)
    np.testing.assert_allclose(both, 0.25 * against_naive + 0.75 * against_meta, atol=1e-6)
    assert min(np.max(np.abs(x)) for x in (against_naive, against_meta)) > 0.05


def test_dynamic_naive_co_players_are_copies_of_the_current_metas():
    policy = tabular(5, 2)
    learner = naive.policy_gradient(policy, naive.PolicyGradientSettings(step_size=50.0))
    cfg = replace(POOL, num_meta=2, meta_episodes=16, inner_episodes=1, dynamic_naive=True)
    cfg = replace(cfg, objective=replace(FAST, optimizer=Optimizer("sgd", 1e-9)))
    state = population.init(cfg, policy, learner, jax.random.key(0))
    sure = lambda *sides: {"logits": 60.0 * jnp.array(sides)[:, None, None] * jnp.ones((2, 5, 1))}  # noqa: E731
    update = jax.jit(population.make_update(cfg, GAME, policy, learner))

    def rewards(params, update=update):
        after, metrics = update(replace(state, params=params))
        # What the copies learned is thrown away with them.
        np.testing.assert_array_equal(after.params["logits"], params["logits"])
        return float(metrics["naive/ego_reward"]), float(metrics["naive/co_reward"])

    assert rewards(sure(1.0, 1.0)) == (1, 1)
    assert rewards(sure(-1.0, -1.0)) == (0, 0)  # another step, the same state of the naive learners
    # One of each: both meet both, so neither the best (½) nor the worst (½ (−1 + 0)) pairing alone.
    ego, co = rewards(sure(1.0, -1.0))
    assert -0.4 < ego < 1.4
    assert ego + co == pytest.approx(1.0, abs=0.5)
    static = jax.jit(
        population.make_update(replace(cfg, dynamic_naive=False), GAME, policy, learner)
    )
    ego, co = rewards(sure(1.0, 1.0), static)
    assert ego < 0.6 < 1.1 < co


def test_no_random_key_serves_twice(monkeypatch):
    """Choosing naive starts and partners, and playing every meta-episode: all with keys of their own."""
    seen = []

    def recorded(function):
        def call(key, *args, **kwargs):
            jax.debug.callback(lambda k: seen.append(tuple(k.tolist())), jax.random.key_data(key))
            return function(key, *args, **kwargs)

        return call

    monkeypatch.setattr(jax.random, "randint", recorded(jax.random.randint))
    for name in ("against_naive", "against_meta"):
        monkeypatch.setattr(population, name, recorded(getattr(population, name)))
    cfg = replace(POOL, num_meta=2, p_naive=0.5, p_meta=0.5, meta_episodes=6)
    train(cfg, 1)
    jax.effects_barrier()
    assert len(seen) == 2 * (1 + 3 + 1 + 3)  # by agent: starts, games, partners, games
    assert len(set(seen)) == len(seen)


def test_a_mixed_pool_runs_and_repeats():
    cfg = replace(POOL, num_meta=3, p_naive=0.5, p_meta=0.5, meta_episodes=4)
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())
    policy = tabular(5, 2, noise=0.5)
    state, metrics = train(cfg, 3, policy, learner)
    again, _ = train(cfg, 3, policy, learner)
    np.testing.assert_array_equal(state.params["logits"], again.params["logits"])
    assert state.params["logits"].shape == (3, 5, 1)
    assert set(metrics) >= {"meta/ego_reward", "naive/ego_reward", "naive/co_last"}
    assert int(state.step) == 3


def test_lola_ascends_its_own_gradients_weighed_by_the_pool(monkeypatch):
    """With "the other's logits" as gradient, the step shows which co-players were looked at, and with what weight."""
    monkeypatch.setattr(population, "lola_dice_gradient", lambda *args: args[4])
    objective = ObjectiveSettings("reinforce", Optimizer("sgd", 1.0), reward_scale=0.5)
    cfg = replace(POOL, num_meta=2, p_naive=0.25, p_meta=0.75, meta_episodes=4)
    cfg = replace(cfg, estimator="lola_dice", objective=objective)
    policy, learner = tabular(5, 2, noise=1.0), naive.frozen(tabular(5, 2, initial_logit=3.0))
    start = population.init(cfg, policy, learner, jax.random.key(0)).params["logits"]
    state, metrics = train(cfg, 1, policy, learner)
    expected = start + 0.5 * (0.25 * 3.0 + 0.75 * start[::-1])
    np.testing.assert_allclose(state.params["logits"], expected, rtol=1e-5)
    assert set(metrics) >= {"meta/ego_reward", "naive/ego_reward", "grad_norm"}


def test_sampled_lola_runs_in_a_pool():
    objective = ObjectiveSettings("reinforce", Optimizer("sgd", 0.5))
    lola = LolaSettings(batch=8)
    cfg = replace(POOL, num_meta=2, p_naive=0.0, p_meta=1.0, estimator="lola_dice", lola=lola)
    state, metrics = train(replace(cfg, objective=objective), 2, tabular(5, 2, noise=0.5))
    assert np.isfinite(state.params["logits"]).all()
    assert (metrics["grad_norm"] > 0).all()


def test_rivals_update_as_their_own_kind_would():
    """Agents with two estimators in one pool: each makes the step it would make if all used its own."""
    # Adam's first step would only show signs, and centring one naive meta-episode would leave no future part.
    rivals = replace(
        POOL,
        num_meta=2,
        p_naive=0.5,
        p_meta=0.5,
        meta_episodes=4,
        objective=replace(FAST, optimizer=Optimizer("sgd", 1.0)),
    )
    policy = tabular(5, 2, noise=1.0)
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())
    start = population.init(rivals, policy, learner, jax.random.key(0))

    def after(estimator):
        update = population.make_update(replace(rivals, estimator=estimator), GAME, policy, learner)
        return jax.jit(update)(start)

    mixed, metrics = after("coala,m_fos")
    for i, name in enumerate(("coala", "m_fos")):
        pure, own = after(name)
        np.testing.assert_allclose(
            mixed.params["logits"][i], pure.params["logits"][i], rtol=1e-5, atol=1e-6
        )
        assert not np.allclose(mixed.params["logits"][1 - i], pure.params["logits"][1 - i])
        assert "meta/ego_reward_coala" not in own
    both = metrics["meta/ego_reward_coala"] + metrics["meta/ego_reward_m_fos"]
    np.testing.assert_allclose(both / 2, metrics["meta/ego_reward"], rtol=1e-5)


@pytest.mark.parametrize(("algorithm", "centre"), [("reinforce", "per_step"), ("ppo", "all")])
def test_slices_leave_the_numbers_as_they_are(algorithm, centre):
    """Played and accumulated in 1, 2 or 4 slices: the same parameters, whatever is a statistic of the whole batch."""
    objective = ObjectiveSettings(
        algorithm, Optimizer("sgd", 1.0), centre=centre, epochs=2, entropy_weight=0.1
    )
    cfg = replace(POOL, num_meta=2, p_naive=0.5, p_meta=0.5, meta_episodes=8, objective=objective)
    policy = tabular(5, 2, noise=1.0, value_scale=1.0)
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())
    start = population.init(cfg, policy, learner, jax.random.key(0))

    def after(slices, own):
        sliced = replace(cfg, slices=slices, objective=replace(objective, slices=own))
        state, metrics = jax.jit(population.make_update(sliced, GAME, policy, learner))(start)
        return state.params, metrics

    whole, numbers = after(1, 1)
    assert not np.allclose(whole["logits"], start.params["logits"], atol=1e-3)
    for slices, own in ((2, 2), (4, 4)):
        params, found = after(slices, own)
        for a, b in zip(
            jax.tree.leaves((whole, numbers)), jax.tree.leaves((params, found)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
