"""Presets of the learning-aware experiments, by figure of arXiv 2410.18636 where there is one.

`get(name, kind)` returns a complete config; kinds are the sub-commands of `internal-rl social`. `with_estimator` gives
one of the paper's other methods the values that the paper found for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from agents.learning_aware.analytic import DEFECTION_LOGIT, AnalyticSettings
from agents.learning_aware.naive import ActorCriticSettings, PolicyGradientSettings
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.population import PoolSettings
from agents.learning_aware.predictive import PredictiveSettings
from internal_rl.config import RuntimeConfig
from internal_rl.errors import UserError, nearest
from internal_rl.social.config import (
    AnalyticConfig,
    EmbeddedConfig,
    GameConfig,
    NaiveConfig,
    PolicyConfig,
    PredictiveConfig,
    SocialConfig,
)

# Sampled games. Tabular presets are ours (minutes on two CPU cores), paper presets have the paper's numbers.

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
_HAWK = PolicyConfig(kind="hawk")
_HAWK_NAIVE = NaiveConfig(rule="actor_critic", policy=_HAWK)
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
    iterations=400,
    policy=PolicyConfig(kind="hawk", width=8, mlp_width=8),
    pool=replace(
        _MIXED_TABULAR.pool,
        meta_episodes=8,
        naive_episodes=4,
        objective=ObjectiveSettings(
            algorithm="reinforce",
            optimizer=Optimizer(learning_rate=0.01, eps=1e-5, grad_clip=1.0),
            centre="per_step",
        ),
    ),
)
_SHAPING_PAPER = SocialConfig(
    name="ipd-shaping-paper",
    iterations=3000,
    policy=_HAWK,
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
_CLEANUP_NAIVE = NaiveConfig(
    rule="actor_critic", policy=_HAWK, actor_critic=ActorCriticSettings(reward_scale=0.1)
)
_CLEANUP_SHAPING = SocialConfig(
    name="cleanup-shaping-paper",
    iterations=3000,
    game=GameConfig("cleanup", 64),
    policy=_HAWK,
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
    policy=_HAWK,
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


def _lola_objective(coala: ObjectiveSettings, optimizer: Optimizer, reward_scale: float):
    # LOLA-DiCE is one step along its own gradient: no critic, whatever the others have.
    return replace(
        coala, algorithm="reinforce", optimizer=optimizer, reward_scale=reward_scale, slices=1
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
        "lola_dice": _lola_objective(_SHAPING_OBJECTIVE, Optimizer("sgd", 0.1), 1.0),
    },
    "cleanup-mixed-paper": {
        "coala": _POOL_OBJECTIVE,
        "batch_unaware": replace(_POOL_OBJECTIVE, optimizer=_POOL_BASELINE),
        "m_fos": replace(_POOL_OBJECTIVE, optimizer=_POOL_BASELINE),
        "lola_dice": _lola_objective(_POOL_OBJECTIVE, _POOL_BASELINE, 0.1),
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

# The analytical game. Figures 3, 4, 9 and 10.

_ANALYTIC_SMOKE = AnalyticConfig(
    name="analytic-smoke",
    iterations=20,
    agents=AnalyticSettings(naive_updates=3, naive_starts=2),
    runtime=RuntimeConfig(log_every=10, checkpoint_every=20),
)
_FIG3A = AnalyticConfig(
    name="coala-fig3a",
    iterations=6000,
    agents=AnalyticSettings(num_meta=1, p_naive=1.0, start="defection"),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=1000),
)
_FIG3B = AnalyticConfig(
    name="coala-fig3b",
    iterations=2400,
    agents=AnalyticSettings(p_naive=0.0, naive_only_steps=600),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=600),
)
_FIG3C = AnalyticConfig(
    name="coala-fig3c",
    iterations=6000,
    agents=AnalyticSettings(p_naive=0.25),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=1000),
)
_FIG3C_META = replace(
    _FIG3C,
    name="coala-fig3c-meta-only",
    iterations=2000,
    agents=replace(_FIG3C.agents, p_naive=0.0),
)
# Neither p_naive nor the naive learners' start is given. Two readings leave mutual defection: steps in probabilities, as
# in the paper's argument about this start, with few naive learners; or naive learners that start near defection, too.
_FIG9 = replace(
    _FIG3C,
    name="coala-fig9",
    iterations=2000,
    agents=replace(_FIG3C.agents, p_naive=0.1, start="defection", space="probabilities"),
)
_FIG9_LOGITS = replace(
    _FIG3C,
    name="coala-fig9-logits",
    iterations=4000,
    agents=replace(_FIG3C.agents, p_naive=0.5, start="defection", naive_start_mean=DEFECTION_LOGIT),
)
_FIG10 = replace(_FIG9, name="coala-fig10", agents=replace(_FIG9.agents, start="tit_for_tat"))
_LOLA_WEIGHTS = {1: 1.0, 2: 1.0, 3: 0.75, 10: 0.6, 20: 0.4}
"""Figure 4C: weight of the LOLA term by number of look-aheads."""


def _lola(look_aheads: int, weight: float, name: str) -> AnalyticConfig:
    # The paper takes η = 10 where the imagined learner makes one step.
    rate = 10.0 if look_aheads == 1 else 5.0
    return AnalyticConfig(
        name=name,
        agents=AnalyticSettings(
            rule="lola_dice", look_aheads=look_aheads, naive_rate=rate, lola_weight=weight
        ),
        # Not given in the paper. With 20 look-aheads, 6000 are too many: see `reproduce.py coala-fig4-length`.
        iterations=2000,
    )


_FIG4A = [_lola(n, 1.0, f"coala-fig4a-{n}") for n in _LOLA_WEIGHTS]
_FIG4C = [_lola(n, w, f"coala-fig4c-{n}") for n, w in _LOLA_WEIGHTS.items() if w < 1]

# Embedded Bayesian agents. Spec sections 11.4 to 11.7.

_TWIN = EmbeddedConfig(name="mupi-twin")
_HALF_DEFECT = EmbeddedConfig(
    name="mupi-half-defect",
    policies="half_defect",
    alphas=(0.30, 1 / 3, 0.34, 0.35, 0.40, 0.50, 0.51),
)
_STAG_HUNT = EmbeddedConfig(name="mupi-stag-hunt", game="stag_hunt")

# Predictive policy improvement (arXiv 2602.16301).

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

Preset = TypeVar("Preset", SocialConfig, AnalyticConfig, EmbeddedConfig, PredictiveConfig)
_ALL = (
    *(_SMOKE, _SHAPING_TABULAR, _MIXED_TABULAR, _SHAPING_HAWK_LAPTOP, _MIXED_HAWK_LAPTOP),
    *(_SHAPING_PAPER, _MIXED_PAPER, _RIVALS_TABULAR, _RIVALS_PAPER),
    *(_CLEANUP_SMOKE, _CLEANUP_SHAPING, _CLEANUP_MIXED),
    *(_ANALYTIC_SMOKE, _FIG3A, _FIG3B, _FIG3C, _FIG3C_META, _FIG9, _FIG9_LOGITS, _FIG10),
    *(*_FIG4A, *_FIG4C),
    *(_TWIN, _HALF_DEFECT, _STAG_HUNT, _PPI_SMOKE, _PPI_LAPTOP, _PPI_PAPER),
    *(_A2C_SMOKE, _A2C_LAPTOP, _A2C_PAPER),
)
PRESETS: dict[str, SocialConfig | AnalyticConfig | EmbeddedConfig | PredictiveConfig] = {
    c.name: c for c in _ALL
}


def get(name: str, kind: type[Preset]) -> Preset:
    """The preset called `name`, a config of class `kind`. Raises `UserError` with the nearest right name."""
    allowed = names(kind)
    preset = PRESETS.get(name)
    if isinstance(preset, kind):
        return preset
    raise UserError(
        f"unknown preset '{name}'; did you mean '{nearest(name, allowed)}'? allowed: {', '.join(allowed)}"
    )


def with_estimator(config: SocialConfig, estimator: str) -> SocialConfig:
    """`config` with `estimator`, and with that method's objective where `config` is a preset of `OBJECTIVES`.

    Everywhere else, and for estimators that the paper has no values of, the objective stays the preset's.
    Sampled LOLA-DiCE imagines single inner episodes, so a Hawk policy forgets between them.
    """
    objective = OBJECTIVES.get(config.name, {}).get(estimator, config.pool.objective)
    policy, naive = config.policy, config.naive
    if estimator == "lola_dice" and policy.kind == "hawk" and policy.memory == "meta_episode":
        policy = replace(policy, memory="inner_episode")
        if config.pool.dynamic_naive:  # copies of the policy
            naive = replace(naive, policy=policy)
    pool = replace(config.pool, estimator=estimator, objective=objective)  # pyright: ignore[reportArgumentType]
    return replace(config, policy=policy, naive=naive, pool=pool)


def names(kind: type) -> tuple[str, ...]:
    """All presets of class `kind`."""
    return tuple(name for name, preset in PRESETS.items() if isinstance(preset, kind))
