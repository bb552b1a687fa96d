"""Predictive policy improvement and its A2C baseline (arXiv 2602.16301)."""

from dataclasses import replace

from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.population import PoolSettings
from agents.learning_aware.predictive import PredictiveSettings
from internal_rl.config import RuntimeConfig
from internal_rl.social.config import (
    GameConfig,
    NaiveConfig,
    PolicyConfig,
    PredictiveConfig,
    SocialConfig,
)

_PPI_PAPER = PredictiveConfig(name="ppi-paper")
_PPI_LAPTOP = PredictiveConfig(
    name="ppi-laptop",
    iterations=18,
    game=GameConfig(episode_length=50),
    agents=PredictiveSettings(
        rollouts=12,
        past_end=True,
        pretrain_games=4096,
        games=512,
        phases=18,
        epochs=8,
        batch=32,
        learning_rate=0.015,
        final_rate=0.02,
    ),
    embed=16,
    hidden=32,
    gru_step="round",
)
_PPI_SMOKE = PredictiveConfig(
    name="ppi-smoke",
    iterations=2,
    game=GameConfig(episode_length=4),
    agents=PredictiveSettings(
        rollouts=2, depth=2, pretrain_games=32, games=8, phases=2, epochs=2, batch=8
    ),
    embed=4,
    hidden=8,
)

# Its A2C baseline: one inner episode, so nothing is shaped; tables never learn and are drawn anew for every game.

_A2C_PAPER = SocialConfig(
    name="ppi-a2c-paper",
    iterations=200_000,
    game=GameConfig(episode_length=100),
    policy=PolicyConfig(kind="gru", width=128, embed=32),
    naive=NaiveConfig(rule="frozen", policy=PolicyConfig(kind="random_tables")),
    pool=PoolSettings(
        num_meta=2,
        p_naive=0.5,
        p_meta=0.5,
        # The paper's batch of 2048 games: half of them against tables, half against the other agent.
        meta_episodes=2,
        batch=1024,
        inner_episodes=1,
        fresh_naive=True,
        estimator="batch_unaware",
        objective=ObjectiveSettings(
            algorithm="a2c",
            optimizer=Optimizer(learning_rate=5e-3, eps=1e-5, grad_clip=1.0),
            centre="all",
            discount=0.99,
            td_lambda=0.99,
            gae_lambda=0.99,
            reward_scale=0.2,
            entropy_weight=1e-3,
        ),
    ),
    runtime=RuntimeConfig(log_every=100, checkpoint_every=5000),
)
_A2C_LAPTOP = replace(
    _A2C_PAPER,
    name="ppi-a2c-laptop",
    iterations=1000,
    game=GameConfig(episode_length=50),
    policy=PolicyConfig(kind="gru", width=32, embed=16),
    pool=replace(_A2C_PAPER.pool, batch=64),
    runtime=RuntimeConfig(log_every=100, checkpoint_every=500),
)
_A2C_SMOKE = replace(
    _A2C_LAPTOP,
    name="ppi-a2c-smoke",
    iterations=2,
    game=GameConfig(episode_length=4),
    policy=PolicyConfig(kind="gru", width=4, embed=4),
    pool=replace(_A2C_PAPER.pool, batch=4),
    runtime=RuntimeConfig(log_every=1, checkpoint_every=2),
)

PRESETS = (_PPI_SMOKE, _PPI_LAPTOP, _PPI_PAPER, _A2C_SMOKE, _A2C_LAPTOP, _A2C_PAPER)
