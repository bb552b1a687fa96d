"""From a `CreditConfig` to its `CreditModel`."""

from typing import Any

from agents.credit import learned
from agents.credit.config import (
    HINDSIGHT_METHODS,
    RETURN_METHODS,
    CreditConfig,
    check_credit,
)
from agents.credit.exact_models import exact_model
from agents.credit.model import CreditModel, WorldSpec
from envs.credit.mdp import FiniteMDP


def make_model(
    config: CreditConfig,
    spec: WorldSpec,
    mdp: FiniteMDP | None = None,
    feature_params: Any = None,
) -> CreditModel:
    """The model of any method.

    Args:
        spec: of the environment.
        mdp: its tables, for exact models.
        feature_params: trained features, for the learned cocoa_feature.

    Raises:
        ValueError: a setting is wrong, or the exact model's MDP is missing.
    """
    check_credit(config)
    if config.model == "exact":
        if mdp is None:
            raise ValueError("credit.model is 'exact', which needs the tables of a finite MDP")
        return exact_model(config, spec, mdp)
    if config.method in HINDSIGHT_METHODS:
        return learned.hindsight_model(config, spec, feature_params)
    if config.method in RETURN_METHODS:
        return learned.return_model(config, spec)
    makers = {
        "reinforce": learned.reinforce_model,
        "advantage": learned.value_model,
        "q_critic": learned.action_value_model,
        "trajectory_cv": learned.action_value_model,
    }
    return makers[config.method](config, spec)
