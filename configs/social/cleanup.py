"""CleanUp-lite at the paper's size, with each method's own values (arXiv 2410.18636, App. F)."""

from collections.abc import Mapping
from dataclasses import replace

from agents.learning_aware.naive import ActorCriticSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.population import PoolSettings
from configs.social.matrix import HAWK
from internal_rl.config import RuntimeConfig
from internal_rl.social.config import GameConfig, NaiveConfig, SocialConfig

_CLEANUP_NAIVE = NaiveConfig(
    rule="actor_critic", policy=HAWK, actor_critic=ActorCriticSettings(reward_scale=0.1)
)
_CLEANUP_SHAPING = SocialConfig(
    name="cleanup-shaping-paper",
    iterations=3000,
    game=GameConfig("cleanup", 64),
    policy=HAWK,
    naive=_CLEANUP_NAIVE,
    pool=PoolSettings(
        meta_episodes=512,
        batch=32,
        inner_episodes=100,
        slices=4,
        naive_starts=10,
        objective=ObjectiveSettings(
            slices=32,
            optimizer=Optimizer(learning_rate=1e-3, eps=1e-5, grad_clip=1.0),
            reward_scale=0.1,
            centre="all",
        ),
    ),
)
_CLEANUP_MIXED = SocialConfig(
    name="cleanup-mixed-paper",
    iterations=30000,
    game=GameConfig("cleanup", 64),
    policy=HAWK,
    naive=replace(
        _CLEANUP_NAIVE,
        actor_critic=ActorCriticSettings(
            optimizer=Optimizer("sgd", 1.0, grad_clip=1.0), reward_scale=0.1, discount=1.0
        ),
    ),
    pool=PoolSettings(
        num_meta=3,
        p_naive=0.75,
        p_meta=0.25,
        meta_episodes=512,
        batch=64,
        inner_episodes=5,
        slices=4,
        dynamic_naive=True,
        objective=ObjectiveSettings(
            algorithm="a2c",
            slices=16,
            optimizer=Optimizer("sgd", 0.1, grad_clip=1.0),
            reward_scale=0.1,
            centre="all",
        ),
    ),
)


_SHAPING_OBJECTIVE, _POOL_OBJECTIVE = _CLEANUP_SHAPING.pool.objective, _CLEANUP_MIXED.pool.objective
_POOL_BASELINE = replace(_POOL_OBJECTIVE.optimizer, learning_rate=0.03)
OBJECTIVES: Mapping[str, Mapping[str, ObjectiveSettings]] = {
    "cleanup-shaping-paper": {
        "coala": _SHAPING_OBJECTIVE,
        "batch_unaware": replace(_SHAPING_OBJECTIVE, reward_scale=1.0),
        "m_fos": replace(
            _SHAPING_OBJECTIVE,
            reward_scale=1.0,
            optimizer=replace(_SHAPING_OBJECTIVE.optimizer, learning_rate=3e-3),
        ),
        "lola_dice": replace(_SHAPING_OBJECTIVE, reward_scale=1.0, optimizer=Optimizer("sgd", 0.1)),
    },
    "cleanup-mixed-paper": {
        "coala": _POOL_OBJECTIVE,
        "batch_unaware": replace(_POOL_OBJECTIVE, optimizer=_POOL_BASELINE),
        "m_fos": replace(_POOL_OBJECTIVE, optimizer=_POOL_BASELINE),
        "lola_dice": replace(_POOL_OBJECTIVE, optimizer=_POOL_BASELINE),
    },
}
"""Objectives by preset and estimator where the paper has one per method (App. F: each was swept by itself)."""
_CLEANUP_SMOKE = replace(
    _CLEANUP_MIXED,
    name="cleanup-smoke",
    iterations=2,
    game=GameConfig("cleanup", 8),
    pool=replace(
        _CLEANUP_MIXED.pool,
        meta_episodes=4,
        batch=4,
        inner_episodes=2,
        slices=1,
        objective=replace(_CLEANUP_MIXED.pool.objective, slices=2),
    ),
    runtime=RuntimeConfig(log_every=1, checkpoint_every=2),
)

PRESETS = (_CLEANUP_SMOKE, _CLEANUP_SHAPING, _CLEANUP_MIXED)
