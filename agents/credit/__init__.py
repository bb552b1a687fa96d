"""Credit assignment by counterfactual contributions, and what it is compared with (COCOA).

Names are imported when they are asked for, so that settings (`agents.credit.config`) can be read without starting JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "make_model": "build",
    "METHODS": "config",
    "CreditConfig": "config",
    "FeatureConfig": "config",
    "CreditModel": "model",
    "WorldSpec": "model",
    "TrainConfig": "train",
    "TrainState": "train",
    "World": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
