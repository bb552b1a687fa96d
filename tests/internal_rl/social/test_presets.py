"""Every preset starts: its first update is traced at full size, which needs neither its memory nor its hours.

Those for smoke tests are run for real in test_cli.py.
"""

from dataclasses import replace

import jax
import pytest

from agents.learning_aware import analytic, population, predictive, predictive_phases
from configs import social as presets
from internal_rl.social.build import make_matrix_game
from internal_rl.social.config import AnalyticConfig, EmbeddedConfig, PredictiveConfig, SocialConfig
from internal_rl.social.embedded import embedded_report
from internal_rl.social.pipeline import parts
from internal_rl.social.predictor import gru_predictor


def training(config):
    """(init, update, a metric that it must report) of a preset."""
    match config:
        case SocialConfig():
            game, policy, learner = parts(config)
            return (
                lambda key: population.init(config.pool, policy, learner, key),
                population.make_update(config.pool, game, policy, learner),
                "naive/ego_reward",
            )
        case AnalyticConfig():
            return (
                lambda key: analytic.init(config.agents, key),
                analytic.make_update(config.agents),
                "cooperation/DC",
            )
        case _:
            game = make_matrix_game(config.game)
            symbols = predictive.num_symbols(config.agents, game)
            model = gru_predictor(symbols, game.num_actions, config.embed, config.hidden)
            return (
                lambda key: predictive_phases.init(config.agents, game, model, key),
                predictive_phases.make_update(config.agents, game, model),
                "tabular/ego_reward",
            )


TRAINED = [n for k in (SocialConfig, AnalyticConfig, PredictiveConfig) for n in presets.names(k)]


@pytest.mark.parametrize("name", [n for n in TRAINED if not n.endswith("-smoke")])
def test_first_update(name):
    init, update, metric = training(presets.PRESETS[name])
    state = jax.eval_shape(init, jax.random.key(0))
    after, metrics = jax.eval_shape(update, state)
    assert metrics[metric].shape == ()
    # Only then can it be scanned over and continued from a checkpoint.
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


@pytest.mark.parametrize("name", presets.names(EmbeddedConfig))
def test_embedded(name):
    config = presets.get(name, EmbeddedConfig)
    report = embedded_report(replace(config, rounds=3))
    assert [row["alpha"] for row in report["rows"]] == list(config.alphas)
