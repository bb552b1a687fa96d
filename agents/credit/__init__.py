"""Credit assignment by counterfactual contributions, and what it is compared with (COCOA)."""

from agents.credit.build import make_model
from agents.credit.config import METHODS, CreditConfig, FeatureConfig
from agents.credit.model import CreditModel, WorldSpec
from agents.credit.train import TrainConfig, TrainState, World

__all__ = [
    "METHODS",
    "CreditConfig",
    "CreditModel",
    "FeatureConfig",
    "TrainConfig",
    "TrainState",
    "World",
    "WorldSpec",
    "make_model",
]
