"""Stage 1: pretrain the base model on unlabelled expert behaviour (paper App. D.1).

Loss: Σ_t −log p(a_t | o_1:t) − λ log p(o_{t+1} | o_1:t), averaged over tokens. No rewards, no task labels.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from internal_rl.config import PretrainConfig
from internal_rl.demonstrations.contract import Batch, Demonstrations, masked_mean
from internal_rl.models.contract import Params, SplitModel, SplitNetwork
from internal_rl.stages.optim import make_optimizer


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; `key` stays, each step folds its number into it."""

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any


def init(
    cfg: PretrainConfig,
    network: SplitNetwork,
    key: jax.Array,
    statistics: tuple | None = None,
    start: Params | None = None,
) -> TrainState:
    """Random weights and a fresh optimiser.

    Args:
        statistics: mean and standard deviation per observation number, for networks that take them.
        start: weights to go on from instead of random ones.
    """
    key_params, key_run = jax.random.split(key)
    params = network.init(key_params) if start is None else jax.tree.map(jnp.copy, start)
    with_statistics = getattr(network, "with_statistics", None)
    if statistics is not None and with_statistics is not None and start is None:
        params = with_statistics(params, *statistics)
    opt_state = make_optimizer(cfg.optimizer, cfg.steps).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def behaviour_loss(
    base: SplitModel, batch: Batch, obs_loss_weight: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The pretraining loss in nats per token, and its parts."""
    _, e = base.lower(batch.obs, None, batch.reset)
    _, out = base.upper(e, None, batch.reset)
    action_nll = masked_mean(-base.action_distribution(out).log_prob(batch.action), batch.valid)
    obs_nll = masked_mean(-base.observation_log_prob(out, batch.next_obs), batch.valid)
    loss = action_nll + obs_loss_weight * obs_nll
    return loss, {"loss": loss, "action_nll": action_nll, "obs_nll": obs_nll}


def make_update(
    cfg: PretrainConfig, network: SplitNetwork, demonstrations: Demonstrations | None
) -> Callable[..., tuple[TrainState, dict]]:
    """One gradient step as `update(state, data) → (state, metrics)` with `demonstrations.data`, or, where the loop feeds
    batches, `update(state, data, batch)`."""
    optimizer = make_optimizer(cfg.optimizer, cfg.steps)
    layer = network.depth // 2  # no result depends on the cut

    def update(
        state: TrainState, data: Any = (), fed: Batch | None = None
    ) -> tuple[TrainState, dict]:
        if fed is None:
            assert demonstrations is not None
            key = jax.random.fold_in(state.key, state.step)
            batch, stats = demonstrations.rows(data, key, cfg.batch_size, clean=False)
        else:
            batch, stats = fed, {}

        def loss_fn(params):
            return behaviour_loss(network.bind(params, layer), batch, cfg.obs_loss_weight)

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), **stats}
        metrics["tokens"] = jnp.sum(batch.valid.astype(jnp.float32))
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    return update
