"""AdamW as every stage uses it."""

import jax
import optax

from internal_rl.config import OptimizerConfig
from internal_rl.models.nn import decay_mask


def make_optimizer(cfg: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW with optional warm-up, cosine decay and clipping; weight decay skips biases, norms and the RG-LRU's a."""
    adamw = _standard_promotion(
        optax.adamw(
            learning_rate(cfg, steps),
            b1=cfg.b1,
            b2=cfg.b2,
            weight_decay=cfg.weight_decay,
            mask=decay_mask,
        )
    )
    if cfg.grad_clip > 0:
        return optax.chain(optax.clip_by_global_norm(cfg.grad_clip), adamw)
    return adamw


def learning_rate(cfg: OptimizerConfig, steps: int) -> optax.Schedule | float:
    """Learning rate of a stage of `steps` steps: linear warm-up, then constant, then (cosine) the decay."""
    rate = optax.constant_schedule(cfg.learning_rate)
    if cfg.warmup_steps:
        rate = optax.linear_schedule(0.0, cfg.learning_rate, cfg.warmup_steps)
    if cfg.schedule == "constant":
        return rate if cfg.warmup_steps else cfg.learning_rate
    start = max(cfg.warmup_steps, steps - cfg.decay_steps if cfg.decay_steps else 0)
    decay = optax.cosine_decay_schedule(cfg.learning_rate, max(steps - start, 1), alpha=1 / 20)
    return optax.join_schedules([rate, decay], [start])


def _standard_promotion(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax raises β to an integer count, which jax's strict type promotion (on in the tests) forbids."""

    def init(params):
        with jax.numpy_dtype_promotion("standard"):
            return transform.init(params)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(init, update)
