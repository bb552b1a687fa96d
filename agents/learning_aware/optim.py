"""Optimisers of meta agents and naive learners."""

from dataclasses import dataclass
from typing import Literal

import jax
import optax

from agents.learning_aware.checks import above_zero, at_least

KINDS = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class Optimizer:
    """Gradient descent on a loss."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """adamw: with optax's default weight decay of 1e-4, as in the analytical figures."""
    learning_rate: float = 3e-4
    """Constant step size."""
    eps: float = 1e-8
    """Adam's ε (the paper: 1e-5 in the sampled experiments)."""
    grad_clip: float = 0.0
    """Clip gradients to this global norm; 0 switches clipping off."""


def check_optimizer(cfg: Optimizer, prefix: str = "") -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    if cfg.kind not in KINDS:
        raise ValueError(f"{prefix}kind is '{cfg.kind}'; allowed: {', '.join(KINDS)}")
    above_zero(cfg, "learning_rate", prefix=prefix)
    at_least(cfg, 0, "eps", "grad_clip", prefix=prefix)


def make_optimizer(cfg: Optimizer) -> optax.GradientTransformation:
    """The optax transformation of `cfg`. Raises ValueError as `check_optimizer` does."""
    check_optimizer(cfg)
    match cfg.kind:
        case "adam":
            transform = optax.adam(cfg.learning_rate, eps=cfg.eps)
        case "adamw":
            transform = optax.adamw(cfg.learning_rate, eps=cfg.eps)
        case "sgd":
            transform = optax.sgd(cfg.learning_rate)
    if cfg.grad_clip > 0:
        transform = optax.chain(optax.clip_by_global_norm(cfg.grad_clip), transform)
    return standard_promotion(transform)


def standard_promotion(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax raises β to an integer count, which jax's strict type promotion (on in the tests) forbids."""

    def init(params):
        with jax.numpy_dtype_promotion("standard"):
            return transform.init(params)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(init, update)
