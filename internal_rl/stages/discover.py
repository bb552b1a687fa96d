"""Stage 2: discover abstract actions with the metacontroller on a frozen base model (paper App. D.2).

Loss per token: −log p(a_t | o_1:t, z_1:t) − λ log p(o_{t+1} | ·) + α KL(N(μ_t, Σ_t) ‖ N(0, I)). The KL is paid at every
step, whatever β_t is (App. E.1).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from agents.distributions import kl_to_standard_normal
from envs.pinpad.expert import TieBreaking
from internal_rl.analysis.switching import switch_alignment
from internal_rl.base_model import BaseModel
from internal_rl.config import Config, DiscoverConfig
from internal_rl.data import Batch, discovery_batch, masked_mean
from internal_rl.metacontroller import Metacontroller, encode
from internal_rl.networks import Params, base_network, metacontroller_network
from internal_rl.optim import make_optimizer
from internal_rl.stages import contest
from internal_rl.stages.pretrain import TrainState
from internal_rl.world import pretrain_world


def init(
    config: Config, key: jax.Array, base_params: Params | None = None
) -> TrainState | contest.ContestState:
    """Random metacontroller and a fresh optimiser; several of each with `discover.candidates` (`contest`).

    With `discover.cotrain` the parameters are {"metacontroller", "base"}: the base model starts from `base_params`, or
    at random with `cotrain_from_scratch`.
    """
    if config.discover.candidates == 1:
        return _init_one(config, key, base_params)
    start = partial(_init_one, config, base_params=base_params)
    return contest.init(start, key, config.discover.candidates)


def _init_one(config: Config, key: jax.Array, base_params: Params | None = None) -> TrainState:
    key_meta, key_base, key_run = jax.random.split(key, 3)
    params = metacontroller_network(config).init(key_meta)
    if config.discover.cotrain:
        if config.discover.cotrain_from_scratch:
            world = pretrain_world(config.env)
            base_params = base_network(config, world.obs_spec, world.action_spec).init(key_base)
        else:
            # Donated with the rest of the state, so the caller's copy must stay its own.
            base_params = jax.tree.map(jnp.copy, base_params)
        params = {"metacontroller": params, "base": base_params}
    opt_state = make_optimizer(config.discover.optimizer, config.discover.steps).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def discovery_loss(
    base: BaseModel,
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


def make_update(config: Config) -> Callable:
    """One gradient step as `update(state, base_params) → (state, metrics)`; gradients never reach `base_params`."""
    update = _make_update_one(config)
    if config.discover.candidates == 1:
        return update
    return contest.make_update(update, config.discover.select_steps)


def _make_update_one(config: Config) -> contest.Update:
    cfg = config.discover
    world = pretrain_world(config.env)
    base_net = base_network(config, world.obs_spec, world.action_spec)
    meta_net = metacontroller_network(config)
    optimizer = make_optimizer(cfg.optimizer, cfg.steps)

    def rows(tie_breaking: TieBreaking, key: jax.Array) -> Batch:
        return discovery_batch(key, world, cfg.batch_size, cfg, tie_breaking)

    def draw(key: jax.Array, step: jax.Array) -> Batch:
        if not cfg.tail_steps or cfg.tail_tie_breaking == cfg.tie_breaking:
            return rows(cfg.tie_breaking, key)
        return jax.lax.cond(
            step < cfg.steps - cfg.tail_steps,
            partial(rows, cfg.tie_breaking),
            partial(rows, cfg.tail_tie_breaking),
            key,
        )

    def update(state: TrainState, base_params: Params) -> tuple[TrainState, dict]:
        key_data, key_noise = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = draw(key_data, state.step)
        alpha = kl_weight(cfg, state.step)
        random_switches = None
        if cfg.random_switch_steps:
            random_switches = state.step < cfg.random_switch_steps

        def loss_fn(params):
            trained_base = params["base"] if cfg.cotrain else base_params
            meta_params = params["metacontroller"] if cfg.cotrain else params
            base, meta = base_net.bind(trained_base), meta_net.bind(meta_params)
            return discovery_loss(base, meta, batch, key_noise, alpha, cfg, random_switches)

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "kl_weight": alpha}
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    return update
