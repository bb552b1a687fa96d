"""Pools of the iterated prisoner's dilemma, sampled (arXiv 2410.18636, section 5 and App. F).

Tabular and laptop presets are ours (minutes on two CPU cores), paper presets have the paper's numbers.
"""

from dataclasses import replace

from agents.learning_aware.naive import PolicyGradientSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.population import PoolSettings
from internal_rl.config import RuntimeConfig
from internal_rl.social.config import GameConfig, NaiveConfig, PolicyConfig, SocialConfig

_TABULAR_OBJECTIVE = ObjectiveSettings(
    algorithm="reinforce", optimizer=Optimizer(learning_rate=0.03), centre="per_step"
)
_SMOKE = SocialConfig(
    name="social-smoke",
    iterations=4,
    game=GameConfig(episode_length=4),
    policy=PolicyConfig(noise=0.1),
    naive=NaiveConfig(),
    pool=PoolSettings(
        num_meta=2,
        p_naive=0.5,
        p_meta=0.5,
        meta_episodes=4,
        batch=4,
        inner_episodes=3,
        objective=_TABULAR_OBJECTIVE,
    ),
    runtime=RuntimeConfig(log_every=2, checkpoint_every=4),
)
_SHAPING_TABULAR = SocialConfig(
    name="ipd-shaping-tabular",
    iterations=600,
    policy=PolicyConfig(kind="tabular_by_episode", initial_logit=-1.0),
    naive=NaiveConfig(policy_gradient=PolicyGradientSettings(step_size=4.0)),
    pool=PoolSettings(
        objective=replace(_TABULAR_OBJECTIVE, optimizer=Optimizer(learning_rate=0.05)),
    ),
    runtime=RuntimeConfig(log_every=20, checkpoint_every=200),
)
_MIXED_TABULAR = SocialConfig(
    name="ipd-mixed-tabular",
    iterations=700,
    game=GameConfig(episode_length=20),
    policy=PolicyConfig(noise=0.1),
    naive=NaiveConfig(policy_gradient=PolicyGradientSettings(step_size=4.0)),
    pool=PoolSettings(
        num_meta=2,
        p_naive=0.25,
        p_meta=0.75,
        meta_episodes=16,
        naive_episodes=8,
        inner_episodes=40,
        objective=_TABULAR_OBJECTIVE,
    ),
    runtime=RuntimeConfig(log_every=25, checkpoint_every=100),
)
_RIVALS_TABULAR = replace(
    _MIXED_TABULAR,
    name="ipd-rivals-tabular",
    pool=replace(_MIXED_TABULAR.pool, estimator="coala,m_fos"),
)
HAWK = PolicyConfig(kind="hawk")
_HAWK_NAIVE = NaiveConfig(rule="actor_critic", policy=HAWK)
_PPO = ObjectiveSettings(reward_scale=0.05)
_SHAPING_HAWK_LAPTOP = SocialConfig(
    name="ipd-shaping-hawk-laptop",
    iterations=320,
    policy=PolicyConfig(kind="hawk", width=16, mlp_width=16),
    naive=NaiveConfig(),
    pool=PoolSettings(
        inner_episodes=10,
        objective=ObjectiveSettings(
            algorithm="reinforce",
            optimizer=Optimizer(learning_rate=0.005, eps=1e-5, grad_clip=1.0),
            centre="per_step",
        ),
    ),
    runtime=RuntimeConfig(log_every=10, checkpoint_every=100),
)
_MIXED_HAWK_LAPTOP = replace(
    _MIXED_TABULAR,
    name="ipd-mixed-hawk-laptop",
    iterations=1200,
    policy=PolicyConfig(kind="hawk", width=8, mlp_width=8),
    # If all naive learners start alike, metas learn to shape whoever opens like them and to defect on each other.
    naive=replace(_MIXED_TABULAR.naive, policy=PolicyConfig(noise=0.7)),
    pool=replace(
        _MIXED_TABULAR.pool,
        meta_episodes=8,
        naive_episodes=4,
        fresh_naive=True,
        objective=ObjectiveSettings(
            algorithm="reinforce",
            optimizer=Optimizer(learning_rate=0.005, eps=1e-5, grad_clip=1.0),
            # Centred per step with four naive meta-episodes, a quarter of the shaping part is gone.
            centre="leave_one_out",
        ),
    ),
)
_SHAPING_PAPER = SocialConfig(
    name="ipd-shaping-paper",
    iterations=3000,
    policy=HAWK,
    naive=_HAWK_NAIVE,
    pool=PoolSettings(meta_episodes=128, naive_starts=10, objective=_PPO),
)
_MIXED_PAPER = replace(
    _SHAPING_PAPER,
    name="ipd-mixed-paper",
    pool=replace(_SHAPING_PAPER.pool, num_meta=4, p_naive=0.75, p_meta=0.25),
)
_RIVALS_PAPER = replace(
    _MIXED_PAPER,
    name="ipd-rivals-paper",
    pool=replace(_MIXED_PAPER.pool, estimator="coala,coala,m_fos,m_fos"),
)

PRESETS = (
    *(_SMOKE, _SHAPING_TABULAR, _MIXED_TABULAR, _SHAPING_HAWK_LAPTOP, _MIXED_HAWK_LAPTOP),
    *(_SHAPING_PAPER, _MIXED_PAPER, _RIVALS_TABULAR, _RIVALS_PAPER),
)
