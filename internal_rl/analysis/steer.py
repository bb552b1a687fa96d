"""Labelled controllers: how steerable a base model is, and an upper bound for what codes can do (paper App. C.3).

One low-rank linear controller U^(g) per sub-goal g, trained on expert data with the true sub-goal given, β = 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from internal_rl.config import Config, OptimizerConfig
from internal_rl.control import LowRankControl, apply_control
from internal_rl.data import masked_mean, padded_batch
from internal_rl.networks import Params, base_network
from internal_rl.optim import make_optimizer
from internal_rl.rollout import Controller, Decision
from internal_rl.stages.pretrain import TrainState
from internal_rl.world import pretrain_world


def init(config: Config, key: jax.Array, *, rank: int = 16) -> TrainState:
    """Controllers [O, r, D] and [O, D, r] that start at U = 0."""
    key_params, key_run = jax.random.split(key)
    goals, width = config.env.num_objects, config.model.width
    params = {
        "a": jax.random.normal(key_params, (goals, rank, width)) * width**-0.5,
        "b": jnp.zeros((goals, width, rank)),
    }
    opt_state = _optimizer(config).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def make_update(config: Config) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """One gradient step on −log p(a_t | o_1:t, g_t) as `update(state, base_params)`."""
    world = pretrain_world(config.env)
    network = base_network(config, world.obs_spec, world.action_spec)
    optimizer = _optimizer(config)
    rows = min(config.discover.batch_size, 512)

    def update(state: TrainState, base_params: Params) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(state.key, state.step)
        batch, _ = padded_batch(key, world, rows, 0.0, "uniform")
        base = network.bind(base_params)
        _, e = base.lower(batch.obs, None, batch.reset)

        def loss_fn(params):
            control = LowRankControl(params["a"][batch.goal], params["b"][batch.goal])
            _, out = base.upper(apply_control(e, control), None, batch.reset)
            return masked_mean(-base.action_distribution(out).log_prob(batch.action), batch.valid)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, state.key, params, opt_state), {"loss": loss}

    return update


def labelled_controller(params: dict[str, jax.Array], code_dim: int = 0) -> Controller:
    """U^(g) of the true active sub-goal at every step."""

    def act(key, e, state, goal):
        del key
        control = LowRankControl(params["a"][goal], params["b"][goal])
        batch = goal.shape[0]
        decision = Decision(
            switch=goal != state,
            gate=(goal != state).astype(e.dtype),
            z=jnp.zeros((batch, code_dim)),
            log_prob=jnp.zeros((batch,)),
        )
        return goal, apply_control(e, control), decision

    return Controller(init=lambda batch: jnp.full((batch,), -1, jnp.int32), act=act)


def _optimizer(config: Config) -> optax.GradientTransformation:
    # Spec section 4: AdamW 1e-3, weight decay 0.03 on the factors themselves.
    cfg = OptimizerConfig(learning_rate=1e-3, weight_decay=0.03)
    return make_optimizer(cfg, config.evaluate.steering_steps)
