"""Presets of the learning-aware experiments, by figure of arXiv 2410.18636 where there is one.

`get(name, kind)` returns a complete config; kinds are the sub-commands of `internal-rl social`. `with_estimator` gives
one of the paper's other methods the values that the paper found for it.
"""

from dataclasses import replace
from typing import TypeVar

from configs.social import analytic, cleanup, embedded, matrix, predictive
from configs.social.cleanup import OBJECTIVES
from internal_rl.errors import UserError, nearest
from internal_rl.social.config import AnalyticConfig, EmbeddedConfig, PredictiveConfig, SocialConfig

Preset = TypeVar("Preset", SocialConfig, AnalyticConfig, EmbeddedConfig, PredictiveConfig)
PRESETS: dict[str, SocialConfig | AnalyticConfig | EmbeddedConfig | PredictiveConfig] = {
    config.name: config
    for family in (matrix, cleanup, analytic, embedded, predictive)
    for config in family.PRESETS
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

    Everywhere else, and for estimators that the paper has no values of, the objective stays the preset's. Sampled
    LOLA-DiCE has no critic, and imagines single inner episodes: a Hawk policy forgets between them, and one table serves
    for all of them.
    """
    objective = OBJECTIVES.get(config.name, {}).get(estimator, config.pool.objective)
    policy, naive = config.policy, config.naive
    if estimator == "lola_dice":  # one step along its own gradient, whatever the others have
        objective = replace(objective, algorithm="reinforce", slices=1)
        if policy.kind == "hawk" and policy.memory == "meta_episode":
            policy = replace(policy, memory="inner_episode")
            if config.pool.dynamic_naive:  # copies of the policy
                naive = replace(naive, policy=policy)
        if policy.kind == "tabular_by_episode":
            policy = replace(policy, kind="tabular")
    pool = replace(config.pool, estimator=estimator, objective=objective)  # pyright: ignore[reportArgumentType]
    return replace(config, policy=policy, naive=naive, pool=pool)


def meta_only(config: SocialConfig) -> SocialConfig:
    """The pool of `config` without naive learners."""
    return replace(config, pool=replace(config.pool, p_naive=0.0, p_meta=1.0, naive_episodes=0))


def names(kind: type) -> tuple[str, ...]:
    """All presets of class `kind`."""
    return tuple(name for name, preset in PRESETS.items() if isinstance(preset, kind))
