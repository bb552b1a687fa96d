"""Predictive policy improvement with exact models, and with the GRU on games small enough to check."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import predictive, predictive_phases
from agents.learning_aware.predictive import PredictiveSettings, Predictor, rollout_values
from envs.social.matrix import IteratedMatrixGame
from internal_rl.social.predictor import gru_predictor

PAYOFF = np.array([1.0, -1.0, 2.0, 0.0])  # own-first CC, CD, DC, DD
OWN = np.array([0.3, 0.8, 0.2, 0.6, 0.4])  # P(C) after start, CC, CD, DC, DD
OTHER = np.array([0.5, 0.9, 0.3, 0.7, 0.1])


def exact_model():
    """A predictor that knows both tables; its carry is (last observation, own action)."""
    logit = lambda p: jnp.log(jnp.asarray(p)) - jnp.log1p(-jnp.asarray(p))  # noqa: E731
    swapped = jnp.array([0, 1, 3, 2, 4])  # the other names the states its own action first

    def observe(params, carry, obs):
        reward = jnp.concatenate([jnp.zeros(1), jnp.asarray(PAYOFF)])[obs]
        return (obs, carry[1]), reward

    def receive(params, carry, reward):
        own = logit(OWN)[carry[0]]
        return carry, jnp.stack([own, jnp.zeros_like(own)], axis=-1)

    def act(params, carry, action):
        other = jnp.asarray(OTHER)[swapped][carry[0]]
        chance = jnp.stack([other, 1 - other], axis=-1)  # of the other's C and D
        cells = jax.nn.one_hot(action, 2)[:, :, None] * chance[:, None, :]
        full = jnp.concatenate([jnp.zeros((len(action), 1)), cells.reshape(-1, 4)], axis=1)
        return (carry[0], action), jnp.log(full + 1e-30)

    start = lambda b: (jnp.zeros(b, jnp.int32), jnp.zeros(b, jnp.int32))  # noqa: E731
    return Predictor(lambda key: (), start, observe, receive, act, lambda p, g: jnp.zeros(()))


def exact_values(obs, depth, discount):
    """Q(a) by enumeration of all continuations."""
    swapped = [0, 1, 3, 2, 4]
    values = np.zeros(2)
    for first in range(2):
        for plan in itertools.product(range(2), repeat=2 * depth - 1):
            own = (first, *plan[: depth - 1])
            other = plan[depth - 1 :]
            o, chance, total = obs, 1.0, 0.0
            for k, (a, b) in enumerate(zip(own, other, strict=True)):
                p_own = 1.0 if k == 0 else (OWN[o] if a == 0 else 1 - OWN[o])
                p_other = OTHER[swapped[o]]
                chance *= p_own * (p_other if b == 0 else 1 - p_other)
                o = 1 + 2 * a + b
                total += discount**k * PAYOFF[o - 1]
            values[first] += chance * total
    return values


@pytest.mark.parametrize(("depth", "left"), [(3, 9), (3, 2)])
def test_rollouts_inside_an_exact_model_give_the_exact_values(depth, left):
    model = exact_model()
    cfg = PredictiveSettings(rollouts=8000, depth=depth, discount=0.8)
    obs = jnp.array([0, 2, 3])
    carry, _ = model.observe((), model.init_carry(3), obs)
    found = jax.jit(lambda key: rollout_values(key, model, (), carry, 2, cfg, left))(
        jax.random.key(0)
    )
    expected = np.stack([exact_values(int(o), min(depth, left), 0.8) for o in obs])
    np.testing.assert_allclose(found, expected, atol=0.07)


def test_actions_share_the_random_numbers_of_their_rollouts():
    """Where the action changes nothing, both have exactly the same Q̂, however few rollouts there are."""
    model = replace(
        exact_model(),
        act=lambda params, carry, action: (carry, jnp.tile(jnp.log(0.2), (len(action), 5))),
    )
    carry, _ = model.observe((), model.init_carry(3), jnp.array([0, 2, 3]))
    cfg = PredictiveSettings(rollouts=2, depth=4)
    values = rollout_values(jax.random.key(0), model, (), carry, 2, cfg, 9)
    np.testing.assert_array_equal(values[:, 0], values[:, 1])
    assert len(np.unique(values)) > 1


@pytest.mark.parametrize(("past_end", "expected"), [(False, [2, 1]), (True, [3, 3])])
def test_rollouts_end_with_the_game_or_go_on(past_end, expected, monkeypatch):
    seen = []

    def values(*args):
        seen.append(int(args[-1]))
        return jnp.zeros((1, 2))

    monkeypatch.setattr(predictive, "rollout_values", values)
    game = IteratedMatrixGame(episode_length=2)
    cfg = PredictiveSettings(depth=3, past_end=past_end)
    act, carry = predictive.learning_player(exact_model(), (), game, cfg, 1)
    for time in range(2):
        obs, reward = jnp.zeros(1, jnp.int32), jnp.zeros(1)
        carry, _ = act(jax.random.key(time), carry, obs, reward, jnp.int32(time))
    assert seen == expected


@pytest.mark.parametrize(("final_rate", "total"), [(1.0, 4.0), (0.0, 1 + 0.75 + 0.5 + 0.25)])
def test_the_learning_rate_falls_to_its_last_share(final_rate, total):
    """With a constant gradient each step of Adam is the learning rate long."""
    toy = replace(exact_model(), init=lambda key: jnp.zeros(()), loss=lambda params, games: params)
    cfg = PredictiveSettings(
        epochs=2, batch=4, learning_rate=0.1, weight_decay=0.0, b2=0.999, final_rate=final_rate
    )
    game = IteratedMatrixGame(episode_length=1)
    table = predictive.tabular_player(jax.random.key(0), game, 8)
    memory = jax.tree.map(
        lambda x: x[0], predictive.play(jax.random.key(1), game, (table, table), 8)
    )
    params, _ = predictive_phases.fit(jax.random.key(2), toy, memory, jnp.int32(8), cfg)
    np.testing.assert_allclose(params, -0.1 * total, rtol=1e-4)


def bandit(payoffs):
    """A two-armed bandit as a game of one round, and a predictor of it that is exact except for its own action.

    The policy is one logit per arm, fitted by `fit`; the arm's reward and the other player's coin are known.
    """
    game = IteratedMatrixGame(((payoffs[:1] * 2, payoffs[1:] * 2), ((0.0, 0.0), (0.0, 0.0))), 1)
    reward = jnp.concatenate([jnp.zeros(1), jnp.repeat(jnp.asarray(payoffs), 2)])

    def act(params, carry, action):
        cells = jax.nn.one_hot(1 + 2 * action, 5) + jax.nn.one_hot(2 + 2 * action, 5)
        return carry, jnp.log(cells + 1e-30)

    def loss(params, games):
        return -jnp.mean(jax.nn.log_softmax(params)[games.action])

    return game, Predictor(
        init=lambda key: jnp.zeros(2),
        init_carry=lambda b: jnp.zeros(b),
        observe=lambda params, carry, obs: (carry, reward[obs]),
        receive=lambda params, carry, r: (carry, jnp.broadcast_to(params, (*carry.shape, 2))),
        act=act,
        loss=loss,
    )


def test_exactly_fitted_phases_compound():
    """Real phases on a bandit. Each fitted to the last one's games only: π_k ∝ p0 exp(k β Q), as in the derivation.

    Each fitted to all games so far, as the paper does: to the average of the policies before it, so it moves less.
    """
    phases, n, beta, arms = 3, 1 << 12, 0.5, (1.2, 0.2)
    game, model = bandit(arms)
    cfg = PredictiveSettings(
        beta=beta,
        rollouts=1,
        depth=1,
        tabular_share=1.0,
        pretrain_games=n,
        games=n,
        phases=phases,
        epochs=10,
        batch=1 << 10,
        learning_rate=0.1,
        final_rate=0.0,
        weight_decay=0.0,
    )
    start = jax.jit(lambda key: predictive_phases.init(cfg, game, model, key))(jax.random.key(0))
    update = jax.jit(predictive_phases.make_update(cfg, game, model))
    tilt = np.exp(beta * (arms[1] - arms[0]))
    last: dict[bool, float] = {}
    for forget in (True, False):
        state, expected = (
            start,
            [0.5],
        )  # random tables, then phase by phase: share of the second arm
        chosen = [float(state.memory.action[:, :n].mean())]
        for _ in range(phases):
            state, metrics = update(state)
            chosen.append(1 - float(metrics["tabular/ego_cooperation"]))
            fitted = expected[-1] if forget else np.mean(expected)
            odds = fitted / (1 - fitted) * tilt
            expected.append(odds / (1 + odds))
            if forget:
                newest = jax.tree.map(lambda x: jnp.roll(x, -n, axis=1), state.memory)
                state = replace(state, memory=newest, filled=jnp.int32(n))
        np.testing.assert_allclose(chosen, expected, atol=0.03)
        last[forget] = expected[-1]
    assert last[True] == pytest.approx(tilt**phases / (1 + tilt**phases))
    assert last[False] > last[True] + 0.1


def test_games_are_the_games_seen_from_both_sides():
    game = IteratedMatrixGame(episode_length=4)
    keys = jax.random.split(jax.random.key(0), 3)
    tables = tuple(predictive.tabular_player(k, game, 16) for k in keys[:2])
    games = predictive.play(keys[2], game, tables, 16)
    own, other = np.asarray(games.action)
    np.testing.assert_array_equal(games.obs[:, :, 0], 0)
    np.testing.assert_array_equal(games.reward[:, :, 0], 0)
    np.testing.assert_array_equal(games.obs[0][:, 1:], 1 + 2 * own + other)
    np.testing.assert_array_equal(games.obs[1][:, 1:], 1 + 2 * other + own)
    np.testing.assert_allclose(games.reward[0][:, 1:], PAYOFF[2 * own + other])


@pytest.mark.parametrize("gru_step", ["symbol", "round"])
def test_the_network_acts_as_it_is_trained(gru_step):
    """The loss of the parallel form is that of the step form, symbol by symbol."""
    game = IteratedMatrixGame(episode_length=3)
    model = gru_predictor(5, 2, 4, 6, gru_step)
    params = model.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)
    tables = tuple(predictive.tabular_player(k, game, 4) for k in keys[:2])
    games = jax.tree.map(lambda x: x[0], predictive.play(keys[2], game, tables, 4))
    observe, receive, act = jax.jit(model.observe), jax.jit(model.receive), jax.jit(model.act)
    carry = model.init_carry(4)
    reward_loss, action_loss, obs_loss = 0.0, 0.0, 0.0
    for t in range(4):
        carry, mean = observe(params, carry, games.obs[:, t])
        reward_loss += jnp.mean((mean - games.reward[:, t]) ** 2) / 4
        carry, logits = receive(params, carry, games.reward[:, t])
        if t < 3:
            chosen = jax.nn.log_softmax(logits)[jnp.arange(4), games.action[:, t]]
            action_loss -= jnp.mean(chosen) / 3
            carry, logits = act(params, carry, games.action[:, t])
            chosen = jax.nn.log_softmax(logits)[jnp.arange(4), games.obs[:, t + 1]]
            obs_loss -= jnp.mean(chosen) / 3
    expected = reward_loss + action_loss + obs_loss
    np.testing.assert_allclose(jax.jit(model.loss)(params, games), expected, rtol=1e-5)


def test_identity_is_told_at_the_start_and_to_nobody_else(monkeypatch):
    """Against tables the agent sees another start symbol, also in what it learns from; against its like it does not."""
    game = IteratedMatrixGame(episode_length=2)
    cfg = PredictiveSettings(
        pretrain_games=4, games=4, phases=1, epochs=1, batch=2, depth=1, rollouts=1, identity=True
    )
    model = gru_predictor(predictive.num_symbols(cfg, game), 2, 2, 2)
    # Its action tells what it saw: defection exactly after the second start symbol.
    told = lambda params, carry, reward: (carry, 1e3 * jnp.stack([carry, -carry], -1))  # noqa: E731
    seen = replace(
        model,
        init_carry=lambda b: jnp.zeros(b),
        observe=lambda params, carry, obs: (jnp.where(obs == 5, -1.0, 1.0), jnp.zeros(obs.shape)),
        receive=told,
        act=lambda params, carry, action: (carry, jnp.zeros((*action.shape, 6))),
    )
    monkeypatch.setattr(predictive, "rollout_values", lambda *_: jnp.zeros((2, 2)))
    state = predictive_phases.init(cfg, game, seen, jax.random.key(0))
    after, _ = jax.jit(predictive_phases.make_update(cfg, game, seen))(state)
    first = np.asarray(after.memory.obs[:, :, 0])
    np.testing.assert_array_equal(first[:, :4], 5)  # the first games, among tables
    np.testing.assert_array_equal(first[:, 4:6], 0)  # against each other
    np.testing.assert_array_equal(first[:, 6:], 5)
    actions = np.asarray(after.memory.action[:, 4:])
    np.testing.assert_array_equal(actions[:, :2], 0)
    np.testing.assert_array_equal(actions[:, 2:], [[[1, 0]] * 2] * 2)
    assert after.memory.obs[:, 4:, 1:].max() < 5


@pytest.mark.slow
def test_one_phase_learns_to_defect_against_tables_and_keeps_its_games():
    game = IteratedMatrixGame(episode_length=4)
    cfg = PredictiveSettings(
        rollouts=8,
        depth=2,
        pretrain_games=256,
        games=64,
        phases=2,
        epochs=40,
        batch=32,
        learning_rate=1e-2,
    )
    model = gru_predictor(5, 2, 8, 16)
    state = predictive_phases.init(cfg, game, model, jax.random.key(0))
    after, metrics = jax.jit(predictive_phases.make_update(cfg, game, model))(state)
    # Random tables earn 0.5; always defecting against them earns 1.
    assert float(metrics["tabular/ego_reward"]) > 0.75
    assert float(metrics["tabular/ego_cooperation"]) < 0.3
    assert float(metrics["tabular/co_reward"]) < 0.0
    assert int(after.filled) == 256 + 64
    np.testing.assert_array_equal(after.memory.action[:, :256], state.memory.action[:, :256])
    assert after.memory.obs[:, 256:320, 1:].min() >= 1  # 0 only where nothing was written
    assert after.memory.obs[:, 320:].max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollouts": 0}, "rollouts is 0; allowed: at least 1"),
        ({"tabular_share": 1.5}, "tabular_share is 1.5; allowed"),
        ({"beta": -1.0}, "beta is -1.0; allowed"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; allowed"),
        ({"final_rate": -0.1}, "final_rate is -0.1; allowed"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        predictive.check(replace(PredictiveSettings(), **change), IteratedMatrixGame())
