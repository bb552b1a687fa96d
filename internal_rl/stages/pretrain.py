"""Stage 1: pretrain the base model on unlabelled expert behaviour (paper App. D.1).

Loss: Σ_t −log p(a_t | o_1:t) − λ log p(o_{t+1} | o_1:t), averaged over tokens. No rewards, no task labels.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from envs.pinpad.expert import generate
from internal_rl.base_model import BaseModel
from internal_rl.config import Config
from internal_rl.data import Batch, masked_mean, packed_batch, padded_batch
from internal_rl.networks import Params, base_network
from internal_rl.optim import make_optimizer
from internal_rl.world import World, pretrain_world


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; `key` stays, each step folds its number into it."""

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any


def init(config: Config, key: jax.Array) -> TrainState:
    """Random weights and a fresh optimiser."""
    world = pretrain_world(config.env)
    key_params, key_run = jax.random.split(key)
    params = base_network(config, world.obs_spec, world.action_spec).init(key_params)
    opt_state = make_optimizer(config.pretrain.optimizer, config.pretrain.steps).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def behaviour_loss(
    base: BaseModel, batch: Batch, obs_loss_weight: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The pretraining loss in nats per token, and its parts."""
    out = base(batch.obs, batch.reset)
    action_nll = masked_mean(-base.action_distribution(out).log_prob(batch.action), batch.valid)
    obs_nll = masked_mean(-base.observation_log_prob(out, batch.next_obs), batch.valid)
    loss = action_nll + obs_loss_weight * obs_nll
    return loss, {"loss": loss, "action_nll": action_nll, "obs_nll": obs_nll}


def make_update(config: Config) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """One gradient step as `update(state, frozen) → (state, metrics)`; nothing is frozen in this stage."""
    cfg = config.pretrain
    world = pretrain_world(config.env)
    network = base_network(config, world.obs_spec, world.action_spec)
    optimizer = make_optimizer(cfg.optimizer, cfg.steps)
    trajectories = trajectories_per_batch(world, cfg.batch_size, cfg.epsilon)

    def update(state: TrainState, frozen: Any = None) -> tuple[TrainState, dict]:
        del frozen
        key = jax.random.fold_in(state.key, state.step)
        if cfg.packing:
            batch, stats = packed_batch(key, world, cfg.batch_size, trajectories, cfg.epsilon)
        else:
            batch, stats = padded_batch(key, world, cfg.batch_size, cfg.epsilon, "uniform")

        def loss_fn(params):
            return behaviour_loss(network.bind(params), batch, cfg.obs_loss_weight)

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {
            "grad_norm": optax.tree.norm(grads),
            "solvable_fraction": stats["solvable_fraction"],
            "tokens": jnp.sum(batch.valid.astype(jnp.float32)),
        }
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    return update


def trajectories_per_batch(world: World, rows: int, epsilon: float) -> int:
    """How many trajectories fill `rows` packed rows on average, found from a sample with a fixed key."""
    sample, _ = jax.jit(
        lambda key: generate(key, world.env, world.tasks, 512, world.horizon, epsilon=epsilon)
    )(jax.random.key(0))
    mean_length = float(jnp.mean(sample.length.astype(jnp.float32)))
    return math.ceil(rows * world.horizon / mean_length)
