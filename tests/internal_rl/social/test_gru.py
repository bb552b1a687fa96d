"""The A2C baseline of predictive policy improvement: GRU policy, and random tables drawn anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import population
from agents.learning_aware.estimators import ESTIMATORS
from agents.learning_aware.objectives import centre, prepare
from agents.learning_aware.policies import random_tables
from agents.learning_aware.shaping import MetaEpisode
from configs import social as presets
from envs.social.matrix import IteratedMatrixGame
from internal_rl.errors import UserError
from internal_rl.social.build import make_learner, make_policy, validate_social
from internal_rl.social.config import NaiveConfig, PolicyConfig, SocialConfig
from internal_rl.social.gru import gru_policy
from internal_rl.social.pipeline import parts

GAME = IteratedMatrixGame(episode_length=3)
CFG = PolicyConfig(kind="gru", width=6, embed=4)
SMOKE = presets.get("ppi-a2c-smoke", SocialConfig)


def trained_looking(params):
    """Read-outs start at zero, which would hide everything."""
    return jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )


def test_a_fresh_policy_is_uniform_and_one_step_at_a_time_is_the_whole():
    policy = gru_policy(CFG, GAME)
    params = jax.jit(policy.init)(jax.random.key(0))
    obs = jnp.array([[0, 1, 2, 4], [0, 3, 1, 1]])
    parallel = jax.jit(lambda params: policy.parallel(params, obs, None))
    logits, values = parallel(params)
    np.testing.assert_array_equal(logits, np.zeros((2, 4, 2)))
    np.testing.assert_array_equal(values, np.zeros((2, 4)))
    params = trained_looking(params)
    logits, values = parallel(params)
    carry, step = policy.init_carry(2), jax.jit(policy.step)
    for t in range(4):
        carry, step_logits, step_values = step(params, obs[:, t], carry)
        np.testing.assert_allclose(step_logits, logits[:, t], atol=1e-5)
        np.testing.assert_allclose(step_values, values[:, t], atol=1e-5)
    # Chains with the same last observation but another history differ.
    assert float(jnp.abs(logits[0, 1] - logits[1, 2]).max()) > 1e-3


def test_random_tables_are_one_per_chain_and_uniform():
    policy = random_tables(5, 1000)
    params = policy.init(jax.random.key(0))
    obs = jnp.tile(jnp.arange(5), (1000, 1))
    logits, _ = policy.parallel(params, obs, None)
    chance = np.asarray(jax.nn.softmax(logits)[..., 0])
    np.testing.assert_allclose(chance, jax.nn.sigmoid(params["logits"]), rtol=1e-5)
    np.testing.assert_allclose(np.quantile(chance, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03)
    _, one, _ = policy.step(params, obs[:, 3], ())
    np.testing.assert_array_equal(one, logits[:, 3])


def test_tables_are_drawn_anew_in_every_iteration():
    game, policy, learner = parts(SMOKE)
    state = population.init(SMOKE.pool, policy, learner, jax.random.key(0))
    draw = lambda key: population._naive_starts(key, state, 1, SMOKE.pool, learner)["logits"]  # noqa: E731
    first, second = draw(jax.random.key(1)), draw(jax.random.key(2))
    assert first.shape == (1, SMOKE.pool.batch, game.num_observations)
    assert float(jnp.abs(first - second).min()) > 0
    fixed = dataclasses.replace(SMOKE.pool, fresh_naive=False)
    one = population._naive_starts(jax.random.key(1), state, 1, fixed, learner)["logits"]
    np.testing.assert_array_equal(one, state.naive["logits"])


def test_advantages_and_targets_by_hand():
    """One inner episode of three rounds: plain GAE and λ-returns, centred over games and rounds."""
    settings = dataclasses.replace(
        SMOKE.pool.objective, discount=0.9, td_lambda=0.8, gae_lambda=0.5, reward_scale=0.2
    )
    values = np.array([[0.3, -0.1, 0.2], [0.0, 0.4, 0.1]])
    reward = np.array([[1.0, -1.0, 2.0], [0.0, 2.0, 2.0]])
    advantage, target = np.zeros_like(reward), np.zeros_like(reward)
    for b in range(2):
        gae, after, later = 0.0, 0.0, 0.0  # A_{t+1}, V_{t+1}, G^λ_{t+1}
        for t in (2, 1, 0):
            delta = 0.2 * reward[b, t] + 0.9 * after - values[b, t]
            gae = delta + 0.9 * 0.5 * gae
            later = 0.2 * reward[b, t] + 0.9 * (0.2 * after + 0.8 * later)
            advantage[b, t], target[b, t], after = gae, later, values[b, t]

    fixed = dataclasses.replace(
        gru_policy(CFG, GAME),
        parallel=lambda params, obs, reset: (
            jnp.zeros((2, 3, 2)),
            jnp.asarray(values, jnp.float32),
        ),
    )
    episode = MetaEpisode(
        obs=jnp.zeros((1, 2, 3), jnp.int32),
        action=jnp.zeros((1, 2, 3), jnp.int32),
        reward=jnp.asarray(reward, jnp.float32)[None],
        co_reward=jnp.zeros((1, 2, 3)),
        info={},
    )
    chains = prepare(fixed, {}, episode, ESTIMATORS["batch_unaware"], settings, 3)
    chains = centre(chains, 2, settings)
    np.testing.assert_allclose(chains.signal, advantage - advantage.mean(), atol=1e-6)
    np.testing.assert_allclose(chains.target, target, atol=1e-6)


def test_paper_preset_has_the_papers_settings():
    config = presets.get("ppi-a2c-paper", SocialConfig)
    pool, objective = config.pool, config.pool.objective
    # Column 1 of its table: 2048 games, half of them against tables.
    assert pool.meta_episodes * pool.batch == 2048
    assert (pool.num_meta, pool.p_naive, pool.inner_episodes) == (2, 0.5, 1)
    assert (config.game.episode_length, config.policy.width, config.policy.embed) == (100, 128, 32)
    assert (objective.discount, objective.td_lambda, objective.gae_lambda) == (0.99, 0.99, 0.99)
    assert (objective.reward_scale, objective.value_weight) == (0.2, 0.5)
    assert (objective.entropy_weight, objective.centre) == (1e-3, "all")
    optimizer = objective.optimizer
    assert (optimizer.learning_rate, optimizer.eps, optimizer.grad_clip) == (5e-3, 1e-5, 1.0)


@pytest.mark.slow
def test_it_learns_to_defect_against_tables():
    config = dataclasses.replace(
        SMOKE,
        pool=dataclasses.replace(
            SMOKE.pool, num_meta=1, p_naive=1.0, p_meta=0.0, meta_episodes=1, batch=128
        ),
    )
    game, policy, learner = parts(config)
    state = population.init(config.pool, policy, learner, jax.random.key(0))
    update = population.make_update(config.pool, game, policy, learner)
    scan = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, length=200))
    _, metrics = scan(state)
    # A uniform policy earns 0.5, always defecting 1.
    assert float(metrics["naive/ego_reward"][:5].mean()) < 0.65
    assert float(metrics["naive/ego_reward"][-20:].mean()) > 0.85
    assert float(metrics["naive/ego_action0"][-20:].mean()) < 0.2


def test_random_tables_are_for_co_players_that_never_learn():
    tables = PolicyConfig(kind="random_tables")
    with pytest.raises(UserError, match=r"policy.kind is 'random_tables' with 2 actions; allowed"):
        make_policy(tables, GAME, 1)
    with pytest.raises(UserError, match=r"naive.rule 'frozen'"):
        make_learner(NaiveConfig(policy=tables), GAME)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"embed": 0}, "policy.embed is 0; allowed: at least 1"),
        ({"memory": "step"}, "policy.memory is 'step'; allowed with gru: meta_episode"),
    ],
)
def test_bad_networks(policy, message):
    config = dataclasses.replace(SMOKE, policy=dataclasses.replace(CFG, **policy))
    with pytest.raises(UserError, match=message):
        validate_social(config)


def test_naive_starts_are_fresh_or_copies_not_both():
    pool = dataclasses.replace(SMOKE.pool, dynamic_naive=True)
    with pytest.raises(UserError, match="fresh_naive is True with dynamic_naive True; allowed"):
        validate_social(dataclasses.replace(SMOKE, pool=pool))
