"""Agents against frozen ones, and agents that go on from another run's games, with models whose play is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import predictive, predictive_phases
from agents.learning_aware.predictive import PredictiveSettings, Predictor
from envs.social.matrix import IteratedMatrixGame

GAME = IteratedMatrixGame(episode_length=5)
CFG = PredictiveSettings(
    pretrain_games=6, games=4, phases=3, epochs=1, batch=2, depth=1, rollouts=1, tabular_share=0.0
)
FROZEN = replace(CFG, opponent="frozen")
GO_ON = replace(CFG, start="parent")
COOPERATES, DEFECTS = 1.0, -1.0


@pytest.fixture(autouse=True)
def _no_rollouts(monkeypatch):
    monkeypatch.setattr(predictive, "rollout_values", lambda *args: jnp.zeros((4, 2)))


def model():
    """Its one parameter is whether it cooperates; a fit leaves it at always."""
    return Predictor(
        init=lambda key: jnp.float32(COOPERATES),
        init_carry=lambda b: jnp.zeros(b),
        observe=lambda params, carry, obs: (carry, jnp.zeros(obs.shape)),
        receive=lambda params, carry, reward: (
            carry,
            1e3 * jnp.stack([params + carry, -params - carry], axis=-1),
        ),
        act=lambda params, carry, action: (carry, jnp.zeros((*action.shape, 5))),
        loss=lambda params, games: 0.0 * params,
    )


def parent_state(cfg=CFG):
    """Of an agent that cooperates and one that defects."""
    state = predictive_phases.init(cfg, GAME, model(), jax.random.key(0))
    return replace(state, params=jnp.array([COOPERATES, DEFECTS]))


def phase(cfg, state):
    return jax.jit(predictive_phases.make_update(cfg, GAME, model()))(state)


def test_each_agent_meets_its_frozen_one_and_remembers_its_own_side():
    start = predictive_phases.init(FROZEN, GAME, model(), jax.random.key(0), parent_state())
    after, metrics = phase(FROZEN, start)
    # CC for the first agent, CD for the second, which cooperates with one that defects.
    new = jax.tree.map(lambda x: np.asarray(x[:, 6:10]), after.memory)
    np.testing.assert_array_equal(new.action, 0)
    np.testing.assert_array_equal(new.obs[:, :, 0], 0)
    np.testing.assert_array_equal(new.obs[0, :, 1:], 1)
    np.testing.assert_array_equal(new.obs[1, :, 1:], 2)
    np.testing.assert_array_equal(new.reward[0, :, 1:], 1.0)
    np.testing.assert_array_equal(new.reward[1, :, 1:], -1.0)
    assert int(after.filled) == 10
    for before, now in zip(
        jax.tree.leaves(start.memory), jax.tree.leaves(after.memory), strict=True
    ):
        np.testing.assert_array_equal(before[:, :6], now[:, :6])
        np.testing.assert_array_equal(now[:, 10:], 0)
    expected = {"ego_reward": 0.0, "co_reward": 1.5, "ego_cooperation": 1.0, "co_cooperation": 0.5}
    expected |= {"ego_late_reward": 0.0, "co_late_reward": 1.5}
    assert {f"frozen/{name}": value for name, value in expected.items()} == {
        name: float(value) for name, value in metrics.items() if name != "loss"
    }


def test_frozen_agents_stay_as_they_are_and_the_others_are_fitted():
    learns = replace(model(), loss=lambda params, games: params)
    state = predictive_phases.init(FROZEN, GAME, learns, jax.random.key(0), parent_state())
    update = jax.jit(predictive_phases.make_update(FROZEN, GAME, learns))
    for _ in range(2):
        state, _ = update(state)
        np.testing.assert_array_equal(state.opponent, [COOPERATES, DEFECTS])
        assert (np.asarray(state.params) < COOPERATES).all()
    assert update._cache_size() == 1


def test_tables_may_be_met_beside_frozen_agents():
    cfg = replace(FROZEN, tabular_share=0.5)
    values = lambda *args: jnp.zeros((2, 2))  # noqa: E731 - two games of each kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictive, "rollout_values", values)
        state = predictive_phases.init(cfg, GAME, model(), jax.random.key(0), parent_state())
        after, metrics = phase(cfg, state)
    assert {"frozen/ego_reward", "tabular/ego_reward"} <= set(metrics)
    assert int(after.filled) == 10


def test_agents_go_on_from_their_parents_memories():
    """Right after its last game, though the parent had room for more."""
    parent, _ = phase(CFG, parent_state())
    state = predictive_phases.init(GO_ON, GAME, model(), jax.random.key(0), parent)
    assert int(state.filled) == 10
    assert int(state.step) == 0
    after, metrics = phase(GO_ON, state)
    assert int(after.filled) == 14
    assert after.opponent is None
    for old, now in zip(jax.tree.leaves(parent.memory), jax.tree.leaves(after.memory), strict=True):
        np.testing.assert_array_equal(old[:, :10], now[:, :10])
        # Enough room for its own phases, too.
        assert now.shape[1] >= 10 + 3 * 4
    np.testing.assert_array_equal(after.memory.obs[:, 10:14, 1:], 1)
    assert float(metrics["meta_reward"]) == 1.0


def test_a_seed_gives_other_tables_and_keys_than_in_the_parent():
    parent = parent_state()
    child = predictive_phases.init(FROZEN, GAME, model(), jax.random.key(0), parent)
    assert (np.asarray(child.memory.obs[:, :6]) != np.asarray(parent.memory.obs[:, :6])).any()
    assert (jax.random.key_data(child.key) != jax.random.key_data(parent.key)).any()


@pytest.mark.parametrize("cfg", [FROZEN, GO_ON])
def test_a_parent_is_needed(cfg):
    with pytest.raises(ValueError, match="parent is missing with opponent"):
        predictive_phases.init(cfg, GAME, model(), jax.random.key(0))


def test_somebody_must_be_met():
    with pytest.raises(
        ValueError, match=r"tabular_share is 0.9 with opponent 'frozen', so none of 4"
    ):
        predictive.check(replace(FROZEN, tabular_share=0.9), GAME)
