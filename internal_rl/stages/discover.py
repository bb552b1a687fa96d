"""Stage 2: discover abstract actions with the metacontroller on a frozen base model (paper App. D.2).

Loss per token: −log p(a_t | o_1:t, z_1:t) − λ log p(o_{t+1} | ·) + α KL(N(μ_t, Σ_t) ‖ N(0, I)). The KL is paid at every
step, whatever β_t is (App. E.1).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from agents.distributions import kl_to_standard_normal
from envs.world import World
from internal_rl.analysis.switching import switch_alignment
from internal_rl.config import DiscoverConfig
from internal_rl.demonstrations.contract import Batch, Demonstrations, masked_mean
from internal_rl.demonstrations.views import discovery_batch, with_view
from internal_rl.models.contract import Params, SplitModel
from internal_rl.models.metacontroller import Metacontroller, encode
from internal_rl.models.parts import Models
from internal_rl.stages import contest
from internal_rl.stages.optim import make_optimizer
from internal_rl.stages.pretrain import TrainState


def init(
    cfg: DiscoverConfig, models: Models, key: jax.Array, base_params: Params | None = None
) -> TrainState | contest.ContestState:
    """Random metacontroller and a fresh optimiser; several of each with `discover.candidates` (`contest`).

    With `discover.cotrain` the parameters are {"metacontroller", "base"}: the base model starts from `base_params`, or
    at random with `cotrain_from_scratch`.
    """
    if cfg.candidates == 1:
        return _init_one(cfg, models, key, base_params)
    start = partial(_init_one, cfg, models, base_params=base_params)
    return contest.init(start, key, cfg.candidates)


def _init_one(
    cfg: DiscoverConfig, models: Models, key: jax.Array, base_params: Params | None = None
) -> TrainState:
    key_meta, key_base, key_run = jax.random.split(key, 3)
    params = models.meta.init(key_meta)
    if cfg.cotrain:
        if cfg.cotrain_from_scratch:
            base_params = models.base.init(key_base)
        else:
            # Donated with the rest of the state, so the caller's copy must stay its own.
            base_params = jax.tree.map(jnp.copy, base_params)
        params = {"metacontroller": params, "base": base_params}
    opt_state = make_optimizer(cfg.optimizer, cfg.steps).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def discovery_loss(
    base: SplitModel,
    meta: Metacontroller,
    batch: Batch,
    key: jax.Array,
    alpha: jax.Array,
    cfg: DiscoverConfig,
    random_switches: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The discovery loss in nats per token, its parts, and how well switches match the true sub-goal changes."""
    e, found = encode(base, meta, batch, key, random_switches=random_switches)
    _, out = base.upper(meta.decoder.control(e, found.z), None, batch.reset)
    action_nll = masked_mean(-base.action_distribution(out).log_prob(batch.action), batch.valid)
    kl = masked_mean(kl_to_standard_normal(found.mean, found.log_std), batch.valid)
    loss = action_nll + alpha * kl
    metrics = {"action_nll": action_nll, "kl": kl}
    if cfg.obs_loss_weight:
        obs_nll = masked_mean(-base.observation_log_prob(out, batch.next_obs), batch.valid)
        loss += cfg.obs_loss_weight * obs_nll
        metrics["obs_nll"] = obs_nll
    alignment = switch_alignment(found.switch_probability, batch.goal_change, batch.valid)
    metrics |= {"loss": loss, "gate": masked_mean(found.gate, batch.valid), **alignment}
    return loss, metrics


def kl_weight(cfg: DiscoverConfig, step: jax.Array) -> jax.Array:
    """α at a step: constant (paper), or held low, then rising over the warm-up, then falling to a low one in the tail."""
    weight = jnp.float32(cfg.kl_weight)
    if cfg.kl_warmup_steps:
        since = step.astype(jnp.float32) - cfg.kl_hold_steps
        progress = jnp.clip(since / cfg.kl_warmup_steps, 0.0, 1.0)
        weight *= cfg.kl_warmup_start + (1.0 - cfg.kl_warmup_start) * progress
    if cfg.tail_steps:
        since = step - (cfg.steps - cfg.tail_steps)
        tail = jnp.float32(cfg.tail_kl_weight)
        if cfg.tail_kl_decay_steps:
            left = jnp.clip(1.0 - since.astype(jnp.float32) / cfg.tail_kl_decay_steps, 0.0, 1.0)
            tail *= (cfg.kl_weight / cfg.tail_kl_weight) ** left
        weight = jnp.where(since < 0, weight, tail)
    return weight


def make_update(
    cfg: DiscoverConfig,
    models: Models,
    world: World,
    demonstrations: Demonstrations | None,
    tail: Demonstrations | None = None,
) -> Callable:
    """One gradient step as `update(state, (base_params, data)) → (state, metrics)`; gradients never reach `base_params`.

    Args:
        demonstrations: D*; None where the loop feeds batches, `update(state, (base_params, ()), batch)`.
        tail: what takes its place in the last `tail_steps`, on the same data.
    """
    update = _make_update_one(cfg, models, world, demonstrations, tail)
    if cfg.candidates == 1:
        return update
    return contest.make_update(update, cfg.select_steps)


def _make_update_one(
    cfg: DiscoverConfig,
    models: Models,
    world: World,
    demonstrations: Demonstrations | None,
    tail: Demonstrations | None,
) -> contest.Update:
    optimizer = make_optimizer(cfg.optimizer, cfg.steps)

    def rows(source: Demonstrations, key: jax.Array, data: Any) -> Batch:
        return discovery_batch(key, world, source, data, cfg.batch_size, cfg)

    def draw(key: jax.Array, step: jax.Array, data: Any) -> Batch:
        assert demonstrations is not None
        if tail is None:
            return rows(demonstrations, key, data)
        return jax.lax.cond(
            step < cfg.steps - cfg.tail_steps,
            partial(rows, demonstrations),
            partial(rows, tail),
            key,
            data,
        )

    def update(
        state: TrainState, frozen: tuple[Params, Any], fed: Batch | None = None
    ) -> tuple[TrainState, dict]:
        base_params, data = frozen
        key_data, key_noise = jax.random.split(jax.random.fold_in(state.key, state.step))
        if fed is None:
            batch = draw(key_data, state.step, data)
        else:
            batch = with_view(key_data, world, fed, cfg)
        alpha = kl_weight(cfg, state.step)
        random_switches = None
        if cfg.random_switch_steps:
            random_switches = state.step < cfg.random_switch_steps

        def loss_fn(params):
            trained_base = params["base"] if cfg.cotrain else base_params
            meta_params = params["metacontroller"] if cfg.cotrain else params
            base, meta = models.bind_base(trained_base), models.bind_meta(meta_params)
            return discovery_loss(base, meta, batch, key_noise, alpha, cfg, random_switches)

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "kl_weight": alpha}
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    return update
