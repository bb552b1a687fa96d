"""Labelled controllers: how steerable a base model is, and an upper bound for what codes can do (paper App. C.3).

One low-rank linear controller U^(g) per sub-goal g, trained on expert data with the true sub-goal given, β = 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from internal_rl.config import OptimizerConfig
from internal_rl.demonstrations.contract import Demonstrations, masked_mean
from internal_rl.models.contract import Params
from internal_rl.models.control import LowRankControl, apply_control
from internal_rl.models.parts import Models
from internal_rl.play.controllers import Controller, Decision
from internal_rl.stages.optim import make_optimizer
from internal_rl.stages.pretrain import TrainState

MOST_ROWS = 512
"""Batch of the paper (App. C.3); smaller where discovery's is."""


def init(key: jax.Array, goals: int, width: int, steps: int, *, rank: int = 16) -> TrainState:
    """Controllers [G, r, D] and [G, D, r] that start at U = 0."""
    key_params, key_run = jax.random.split(key)
    params = {
        "a": jax.random.normal(key_params, (goals, rank, width)) * width**-0.5,
        "b": jnp.zeros((goals, width, rank)),
    }
    return TrainState(jnp.int32(0), key_run, params, _optimizer(steps).init(params))


def make_update(
    models: Models, demonstrations: Demonstrations, rows: int, steps: int
) -> Callable[[TrainState, tuple[Params, Any]], tuple[TrainState, dict]]:
    """One gradient step on −log p(a_t | o_1:t, g_t) as `update(state, (base_params, data))`."""
    optimizer = _optimizer(steps)

    def update(state: TrainState, frozen: tuple[Params, Any]) -> tuple[TrainState, dict]:
        base_params, data = frozen
        key = jax.random.fold_in(state.key, state.step)
        batch, _ = demonstrations.rows(data, key, rows, clean=True)
        base = models.bind_base(base_params)
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


def _optimizer(steps: int) -> optax.GradientTransformation:
    # Spec section 4: AdamW 1e-3, weight decay 0.03 on the factors themselves.
    return make_optimizer(OptimizerConfig(learning_rate=1e-3, weight_decay=0.03), steps)
