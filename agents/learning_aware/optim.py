"""Optimisers of meta agents and naive learners."""

from dataclasses import dataclass
from typing import Literal

import jax
import optax


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


def make_optimizer(cfg: Optimizer) -> optax.GradientTransformation:
    """The optax transformation of `cfg`. Raises ValueError for an unknown kind or a step size that is not positive."""
    if not cfg.learning_rate > 0:
        raise ValueError(f"learning_rate is {cfg.learning_rate}; allowed: above 0")
    match cfg.kind:
        case "adam":
            transform = optax.adam(cfg.learning_rate, eps=cfg.eps)
        case "adamw":
            transform = optax.adamw(cfg.learning_rate, eps=cfg.eps)
        case "sgd":
            transform = optax.sgd(cfg.learning_rate)
        case _:
            raise ValueError(f"optimizer is '{cfg.kind}'; allowed: adam, adamw, sgd")
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
