"""The shaping POMDP and the pool around it, with tabular policies."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive, population
from agents.learning_aware.lola import LolaSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.policies import Policy, sample, tabular, tabular_by_episode
from agents.learning_aware.population import PoolSettings
from agents.learning_aware.shaping import MetaEpisode, against_meta, against_naive
from envs.social.cleanup import APPLE, DIRT, DOWN, LEFT, RIGHT, STAY, UP, CleanUp
from envs.social.matrix import MATCHING_PENNIES, IteratedMatrixGame

GAME = IteratedMatrixGame(episode_length=3)
FAST = ObjectiveSettings("reinforce", Optimizer(learning_rate=0.1), centre="per_step")
POOL = PoolSettings(meta_episodes=2, batch=4, inner_episodes=2, objective=FAST)


def counting():
    """Cooperates on even steps of its own history, defects on odd ones; always surely."""

    def step(params, obs, carry):
        logits = jnp.where(carry % 2 == 0, 1.0, -1.0)
        both = jnp.stack([1e3 * logits, jnp.zeros(())])
        return carry + 1, jnp.broadcast_to(both[None], (obs.shape[0], 2)), jnp.zeros(obs.shape)

    return Policy(lambda key: {}, lambda batch: jnp.int32(0), step, lambda *_: None)


def test_contexts_reset_only_where_they_should():
    """The ego counts through the meta-episode, the naive learner starts again in every inner episode."""
    episode, _ = jax.jit(
        lambda key: against_naive(
            key, GAME, counting(), {}, naive.frozen(counting()), {}, inner_episodes=2, batch=2
        )
    )(jax.random.key(0))
    assert episode.action.tolist() == [[0, 1, 0, 1, 0, 1]] * 2
    # Observations hold the co-player's last action: C D C, then again C D C.
    co_actions = [(int(o) - 1) % 2 for o in episode.obs[0]]
    assert [co_actions[i] for i in (1, 2, 4, 5)] == [0, 1, 0, 1]
    assert episode.obs[0, 0] == episode.obs[0, 3] == 0
    meta = jax.jit(
        lambda key: against_meta(
            key, GAME, counting(), {}, counting(), {}, inner_episodes=2, batch=2
        )
    )(jax.random.key(0))
    assert meta.reward[0].tolist() == [1, 0, 1, 0, 1, 0]


def test_the_naive_learner_learns_inside_the_program():
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())
    defector = {"logits": jnp.full((5, 1), -30.0)}
    episode, after = jax.jit(
        lambda key: against_naive(
            key,
            GAME,
            tabular(5, 2),
            defector,
            learner,
            {"logits": jnp.zeros((5, 1))},
            inner_episodes=12,
            batch=32,
        )
    )(jax.random.key(0))
    own = episode.co_reward.reshape(32, 12, 3).mean((0, 2))
    assert own[0] < -0.3
    assert own[-1] > -0.1
    assert (after["logits"][jnp.array([0, 2, 4])] < -1).all()
    np.testing.assert_array_equal(after["logits"][jnp.array([1, 3])], 0)  # states it never saw


def test_zero_sum_rewards_cancel():
    game = IteratedMatrixGame(MATCHING_PENNIES, 3)
    policy = tabular(5, 2, noise=1.0)
    params = policy.init(jax.random.key(0))
    episode = against_meta(
        jax.random.key(1), game, policy, params, policy, params, inner_episodes=2, batch=4
    )
    np.testing.assert_array_equal(episode.reward + episode.co_reward, 0)


@pytest.mark.parametrize("epochs", [1, 3])
def test_actor_critic_learns_to_defect(epochs):
    policy = tabular(5, 2, value_scale=1.0)
    settings = naive.ActorCriticSettings(
        optimizer=Optimizer(learning_rate=0.1, grad_clip=1.0), epochs=epochs
    )
    learner = naive.actor_critic(policy, settings)
    params = policy.init(jax.random.key(0))
    episode, after = jax.jit(
        lambda key: against_naive(
            key, GAME, policy, params, learner, params, inner_episodes=15, batch=32
        )
    )(jax.random.key(0))
    own = episode.co_reward.reshape(32, 15, 3).mean((0, 2))
    assert own[-3:].mean() > own[:3].mean() + 0.15
    assert float(after["logits"][0, 0]) < -0.3


def test_policies_agree_with_themselves():
    """One step at a time and all at once: the same logits."""
    obs = jax.random.randint(jax.random.key(0), (4, 6), 0, 5)
    for policy in (
        tabular(5, 3, noise=1.0, value_scale=1.0),
        tabular_by_episode(5, 2, 3, 2, noise=1.0),
    ):
        params = policy.init(jax.random.key(1))
        logits, values = policy.parallel(params, obs, None)
        carry = policy.init_carry(4)
        for t in range(6):
            carry, step_logits, step_values = policy.step(params, obs[:, t], carry)
            np.testing.assert_allclose(step_logits, logits[:, t], atol=1e-6)
            np.testing.assert_allclose(step_values, values[:, t], atol=1e-6)


def test_sampling():
    uniform = jnp.linspace(0.0, 0.999, 1000)
    logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    actions = sample(uniform, jnp.broadcast_to(logits, (1000, 3)))
    np.testing.assert_allclose(np.bincount(actions) / 1000, [0.2, 0.5, 0.3], atol=2e-3)
    two = sample(uniform, jnp.broadcast_to(jnp.log(jnp.array([0.2, 0.8])), (1000, 2)))
    assert float((two == 0).mean()) == pytest.approx(0.2, abs=2e-3)


def train(cfg, steps, policy=None, learner=None):
    policy = policy or tabular(5, 2)
    learner = learner or naive.frozen(tabular(5, 2, initial_logit=20.0))
    update = population.make_update(cfg, GAME, policy, learner)
    state = population.init(cfg, policy, learner, jax.random.key(0))
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, steps))
    state, metrics = run(state)
    return state, {name: np.asarray(values) for name, values in metrics.items()}


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"estimator": "lola_dice", "objective": ObjectiveSettings("ppo")},
            r"objective.algorithm is 'ppo' with estimator lola_dice; allowed: reinforce",
        ),
        (
            {"estimator": "lola_dice", "lola": LolaSettings(look_aheads=-1)},
            r"look_aheads is -1; allowed",
        ),
        ({"p_naive": 0.5}, r"p_naive \+ p_meta is 0.5 \+ 0.0 = 0.5; allowed: 1"),
        ({"p_naive": 1.2, "p_meta": -0.2}, r"p_naive is 1.2; allowed: in \[0, 1\]"),
        ({"p_naive": 0.5, "p_meta": 0.5}, r"num_meta is 1 with p_meta 0.5; allowed: at least 2"),
        ({"estimator": "coala-pg"}, r"estimator is 'coala-pg'; allowed: coala"),
        ({"batch": 0}, r"batch is 0; allowed: at least 1"),
        (
            {"meta_episodes": 1},
            r"objective.centre is 'per_step' with one meta-episode against naive .*; allowed: none, all, or at least 2",
        ),
        (
            {"meta_episodes": 1, "objective": replace(FAST, centre="leave_one_out")},
            r"objective.centre is 'leave_one_out' with one .* naive co-players; allowed: at least 2 of each",
        ),
        (
            {"num_meta": 2, "p_naive": 2 / 3, "p_meta": 1 / 3, "meta_episodes": 3}
            | {"objective": replace(FAST, centre="leave_one_out")},
            r"objective.centre is 'leave_one_out' with one .* meta co-players; allowed: at least 2 of each",
        ),
        ({"naive_episodes": 3}, r"naive_episodes is 3 of meta_episodes = 2"),
        ({"slices": 0}, r"slices is 0; allowed: divisors of 2, .* naive \(2\) and meta \(0\)"),
        ({"slices": 4}, r"slices is 4; allowed: divisors of 2"),
        (
            {"num_meta": 2, "meta_episodes": 6, "p_naive": 0.5, "p_meta": 0.5, "slices": 2},
            r"slices is 2; allowed: divisors of 3, .* naive \(3\) and meta \(3\)",
        ),
        (
            {"objective": replace(FAST, slices=3)},
            r"objective.slices is 3; allowed: divisors of 8, the chains of a minibatch",
        ),
        (
            {"objective": ObjectiveSettings("ppo", minibatches=2, slices=8)},
            r"objective.slices is 8; allowed: divisors of 4",
        ),
        ({"objective": replace(FAST, slices=0)}, r"objective.slices is 0; allowed: divisors of 8"),
        (
            {"estimator": "full", "objective": ObjectiveSettings("ppo")},
            r"estimator is 'full' with ppo",
        ),
        (
            {"objective": ObjectiveSettings("ppo", minibatches=3)},
            r"objective.minibatches is 3; allowed: divisors of K \* B = 8",
        ),
        (
            {"objective": ObjectiveSettings("trpo")},  # pyright: ignore[reportArgumentType]
            r"objective.algorithm is 'trpo'; allowed: reinforce, a2c, ppo",
        ),
    ],
)
def test_bad_pools(change, message):
    with pytest.raises(ValueError, match=message):
        train(replace(POOL, **change), 1)


def test_a_context_too_short():
    policy = tabular_by_episode(5, 2, 3, 2)
    with pytest.raises(ValueError, match=r"T \* M is 3 \* 5 = 15; allowed: at most .* context, 6"):
        train(replace(POOL, inner_episodes=5), 1, policy)


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


def test_one_meta_episode_may_be_centred_where_chains_share_nothing():
    for change in ({"estimator": "batch_unaware"}, {"objective": replace(FAST, centre="all")}):
        assert population.check_pool(replace(POOL, meta_episodes=1, **change), GAME) == (1, 0)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("coala,m_foss", "estimator is 'coala,m_foss'; allowed: coala"),
        ("coala,m_fos,coala", "allowed: one name, or 2"),
        ("coala,lola_dice", "estimator is 'coala,lola_dice'; allowed: coala"),
    ],
)
def test_wrong_rivals(estimator, message):
    pool = replace(POOL, num_meta=2, p_naive=0.5, p_meta=0.5, estimator=estimator)
    with pytest.raises(ValueError, match=message):
        population.check_pool(pool, GAME)


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


def test_uneven_sharing_does_not_cancel_over_chains():
    """Half of the chains have one cleaner, half the other: nobody cleans more on average, and yet the gap is 1."""
    cleaned = jnp.zeros((2, 4, 6, 2)).at[0, ..., 0].set(1.0).at[1, ..., 1].set(1.0)
    still = jnp.zeros((2, 4, 6))
    episodes = MetaEpisode(still, still.astype(jnp.int32), still, still, {"cleaned": cleaned})
    metrics = population.episode_metrics("meta", episodes, 3)
    assert metrics["meta/ego_cleaned"] == metrics["meta/co_cleaned"] == 0.5
    assert metrics["meta/cleaned_gap"] == 1.0


def walker(target):
    """CleanUp-lite: to the nearest `target` cell, or nowhere where there is none."""
    game = CleanUp()

    def step(params, obs, carry):
        cell, objects = obs[:, 0].astype(jnp.int32), obs[:, 4:]
        row, column = cell // game.columns, cell % game.columns
        rows, columns = (x[None] for x in divmod(jnp.arange(game.num_cells), game.columns))
        far = jnp.abs(rows - row[:, None]) + jnp.abs(columns - column[:, None])
        goal = jnp.argmin(jnp.where(objects == target, far, 99), axis=1)
        down, right = goal // game.columns - row, goal % game.columns - column
        move = jnp.where(right > 0, RIGHT, jnp.where(right < 0, LEFT, STAY))
        move = jnp.where(down > 0, DOWN, jnp.where(down < 0, UP, move))
        move = jnp.where((objects == target).any(axis=1), move, STAY)
        logits = 1e3 * jax.nn.one_hot(move, game.num_actions)
        return carry, logits, jnp.zeros(obs.shape[0])

    return Policy(lambda key: {}, lambda batch: (), step, lambda *_: None)


def test_the_gap_of_a_cleaner_and_a_harvester_is_the_cleaners_share():
    game = CleanUp(episode_length=32)
    play = partial(
        against_meta,
        ego_params={},
        other_params={},
        game=game,
        inner_episodes=2,
        batch=8,
    )
    cleaner, harvester = walker(DIRT), walker(APPLE)

    @jax.jit
    def metrics(key):
        # Each has either role in one of the two meta-episodes, as agents of a pool have.
        both = [
            play(key, ego=cleaner, other=harvester),
            play(key, ego=harvester, other=cleaner),
        ]
        episodes = jax.tree.map(lambda *x: jnp.stack(x), *both)
        return population.episode_metrics("meta", episodes, game.episode_length), episodes.info

    numbers, info = metrics(jax.random.key(0))
    assert numbers["meta/dirt"] < 2.5
    # The harvester walks past the river's border only by chance of its start.
    assert float(info["cleaned"][0, ..., 1].mean()) < 0.02
    share = float(info["cleaned"][0, ..., 0].mean())
    assert share > 0.2
    assert float(numbers["meta/cleaned_gap"]) == pytest.approx(share, abs=0.02)
    assert abs(float(numbers["meta/ego_cleaned"] - numbers["meta/co_cleaned"])) < 0.02
