"""Stage 3: RL on held-out sparse-reward tasks with a critic-free PPO objective (paper App. C.5).

Two methods with the same objective, advantage and number of episodes:
- internal: π(z | e) acts where the switching unit fires; base model and metacontroller are frozen.
- raw_action: the base model's own weights are trained on its own token-level actions.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from agents.distributions import diagonal_gaussian
from agents.surrogates import ppo_clip, trajectory_advantage
from envs.world import World
from internal_rl.config import ReinforceConfig
from internal_rl.demonstrations.contract import masked_mean
from internal_rl.errors import UserError
from internal_rl.models.contract import Params, SplitModel
from internal_rl.models.metacontroller import Metacontroller
from internal_rl.models.parts import Models
from internal_rl.models.policy import AbstractPolicy
from internal_rl.play.controllers import abstract_controller, policy_sampler, uncontrolled
from internal_rl.play.rollout import Episodes, rollout
from internal_rl.stages.optim import make_optimizer
from internal_rl.stages.pretrain import TrainState


@flax.struct.dataclass
class Frozen:
    """What RL does not train."""

    base: Params
    metacontroller: Params | None


@flax.struct.dataclass
class Experience:
    """What the surrogate needs of a batch of episodes; all arrays start with [B, T] (internal: maybe [B, K])."""

    inputs: jax.Array
    """Residual stream e (internal) or observations (raw_action)."""
    acted: jax.Array
    """[B, T] bool: the trained policy chose something here."""
    first: jax.Array
    """[B, T] bool: the first raw step of the episode."""
    choice: jax.Array
    """Codes [B, T, Z] or actions [B, T]."""
    log_prob: jax.Array
    """Of the choice when it was made [B, T]."""
    advantage: jax.Array
    """[B, T], the same number all along an episode."""


def init(
    cfg: ReinforceConfig, models: Models, key: jax.Array, base_params: Params | None = None
) -> TrainState:
    """A policy that starts from the codes' prior; for raw_action a copy of the base model's weights."""
    key_params, key_run = jax.random.split(key)
    if cfg.method == "internal":
        params = models.policy.init(key_params)
    else:
        params = jax.tree.map(jnp.copy, base_params)
    opt_state = make_optimizer(cfg.optimizer, gradient_steps(cfg)).init(params)
    return TrainState(jnp.int32(0), key_run, params, opt_state)


def training_world(world: World, cfg: ReinforceConfig) -> World:
    """The held-out world with the distractor rewards that `cfg` asks for.

    Raises:
        UserError: the world offers none.
    """
    if not cfg.distractor_reward:
        return world
    with_distractors = getattr(world, "with_distractors", None)
    if with_distractors is None:
        raise UserError(
            f"reinforce.distractor_reward is {cfg.distractor_reward}; allowed: 0, since this world has no member "
            "`with_distractors`"
        )
    return with_distractors(cfg.distractor_reward, cfg.distractor_steps)


def internal_episodes(
    key: jax.Array,
    world: World,
    base: SplitModel,
    meta: Metacontroller,
    policy: AbstractPolicy,
    cfg: ReinforceConfig,
) -> tuple[Episodes, dict[str, jax.Array]]:
    """Fresh episodes under π(z | e), and scalars about their starts."""
    key_start, key_rollout = jax.random.split(key)
    start, stats = world.starts(key_start, cfg.batch_size)
    controller = abstract_controller(meta, policy_sampler(policy), cfg.switch_threshold)
    return rollout(key_rollout, world, base, controller, start, keep=("e",)), stats


def internal_experience(episodes: Episodes, delta: float, abstract_steps: int = 0) -> Experience:
    """Abstract steps of the episodes: one where the switching unit fired.

    On raw-step time [B, T] with a mask, or the first `abstract_steps` = K of each episode side by side [B, K].
    """
    assert episodes.e is not None  # kept
    advantage = trajectory_advantage(episodes.episode_return, delta)
    experience = Experience(
        inputs=episodes.e,
        acted=episodes.decision.switch & episodes.alive,
        first=_first_step(episodes),
        choice=episodes.decision.z,
        log_prob=episodes.decision.log_prob,
        advantage=jnp.broadcast_to(advantage[:, None], episodes.alive.shape),
    )
    if not abstract_steps:
        return experience
    # False sorts before True and the order is stable, so abstract steps come first and stay in order.
    order = jnp.argsort(~experience.acted, axis=1)[:, :abstract_steps]
    take = jax.vmap(lambda x, i: x[i])
    return jax.tree.map(lambda x: take(x, order), experience)


def raw_experience(episodes: Episodes, delta: float) -> Experience:
    """Every raw step of the episodes, which were recorded with their observations."""
    assert episodes.obs is not None  # kept
    advantage = trajectory_advantage(episodes.episode_return, delta)
    return Experience(
        inputs=episodes.obs,
        acted=episodes.alive,
        first=_first_step(episodes),
        choice=episodes.action,
        log_prob=episodes.action_log_prob,
        advantage=jnp.broadcast_to(advantage[:, None], episodes.alive.shape),
    )


def internal_log_prob(policy: AbstractPolicy, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """log π(z_t | e_1:t) [B, T] and entropy [B, T], all abstract steps at once."""
    mean, log_std = policy(batch.inputs, batch.acted)
    distribution = diagonal_gaussian(mean, log_std)
    return distribution.log_prob(batch.choice), distribution.entropy()


def raw_log_prob(base: SplitModel, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """log p(a_t | o_1:t) [B, T] and entropy [B, T] of the base model."""
    _, e = base.lower(batch.inputs, None, batch.first)
    distribution = base.action_distribution(base.upper(e, None, batch.first)[1])
    return distribution.log_prob(batch.choice), distribution.entropy()


def make_epoch(
    loss_fn: Callable[[Params, Any], tuple[jax.Array, dict]],
    optimizer: optax.GradientTransformation,
    cfg: ReinforceConfig,
) -> Callable[[tuple, Any, jax.Array], tuple[tuple, dict]]:
    """`epoch((params, opt_state), experience, key)`: one gradient step per minibatch of the shuffled episodes [B, ...].

    Metrics come back with one entry per minibatch.
    """

    def minibatch_step(carry, batch):
        params, opt_state = carry
        grads, metrics = jax.grad(loss_fn, has_aux=True)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return (optax.apply_updates(params, updates), opt_state), metrics

    def epoch(carry, experience, key):
        def split(x):
            x = x[jax.random.permutation(key, cfg.batch_size)]
            return x.reshape(cfg.minibatches, -1, *x.shape[1:])

        return jax.lax.scan(minibatch_step, carry, jax.tree.map(split, experience))

    return epoch


def make_update(
    cfg: ReinforceConfig, models: Models, world: World
) -> Callable[[TrainState, Frozen], tuple[TrainState, dict]]:
    """One iteration (rollout, advantage, epochs) as `update(state, frozen) → (state, metrics)`.

    Where all episodes of a batch end alike (metric `informative` 0) there is nothing to learn and no epoch is run.
    """
    internal = cfg.method == "internal"
    optimizer = make_optimizer(cfg.optimizer, gradient_steps(cfg))

    def collect(key: jax.Array, params: Params, frozen: Frozen):
        if internal:
            meta, policy = models.bind_meta(frozen.metacontroller), models.bind_policy(params)
            base = models.bind_base(frozen.base)
            episodes, stats = internal_episodes(key, world, base, meta, policy, cfg)
            experience = internal_experience(episodes, cfg.advantage_delta, cfg.abstract_steps)
            return episodes, experience, stats
        key_start, key_rollout = jax.random.split(key)
        start, stats = world.starts(key_start, cfg.batch_size)
        base = models.bind_base(params)
        episodes = rollout(key_rollout, world, base, uncontrolled(), start, keep=("obs",))
        return episodes, raw_experience(episodes, cfg.advantage_delta), stats

    def loss_fn(params: Params, batch: Experience):
        if internal:
            log_prob, entropy = internal_log_prob(models.bind_policy(params), batch)
        else:
            log_prob, entropy = raw_log_prob(models.bind_base(params), batch)
        loss, metrics = ppo_clip(log_prob, batch.log_prob, batch.advantage, batch.acted, cfg.clip)
        entropy = masked_mean(entropy, batch.acted)
        metrics["policy_loss"] = loss
        return loss - cfg.entropy_weight * entropy, metrics

    epoch = make_epoch(loss_fn, optimizer, cfg)

    def update(state: TrainState, frozen: Frozen) -> tuple[TrainState, dict]:
        key_roll, key_epochs = jax.random.split(jax.random.fold_in(state.key, state.step))
        episodes, experience, stats = collect(key_roll, state.params, frozen)

        def one_more(loop):
            i, carry, totals = loop
            carry, metrics = epoch(carry, experience, keys[i])
            return i + 1, carry, jax.tree.map(lambda t, m: t + jnp.mean(m), totals, metrics)

        # Equal returns leave no gradient but the entropy's, so such an iteration only counts its episodes. A loop, and
        # not a condition, because of several seeds it then runs for none instead of for all.
        keys = jax.random.split(key_epochs, cfg.epochs)
        informative = jnp.any(experience.advantage != 0)
        epochs = jnp.where(informative | (cfg.entropy_weight > 0), cfg.epochs, 0)
        names = ("approx_kl", "clip_fraction", "policy_loss", "grad_norm")
        start = (
            jnp.int32(0),
            (state.params, state.opt_state),
            {name: jnp.float32(0) for name in names},
        )
        _, (params, opt_state), totals = jax.lax.while_loop(
            lambda x: x[0] < epochs, one_more, start
        )
        metrics = {name: total / cfg.epochs for name, total in totals.items()}
        # From the choices themselves, so that it is known without a gradient step.
        metrics["entropy"] = -masked_mean(experience.log_prob, experience.acted)
        metrics |= episode_metrics(episodes) | {"informative": informative} | stats
        if internal and cfg.abstract_steps:
            decisions = jnp.sum(episodes.decision.switch & episodes.alive)
            metrics["unseen_decisions"] = 1.0 - jnp.sum(experience.acted) / jnp.maximum(
                decisions, 1
            )
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    return update


def episode_metrics(episodes: Episodes) -> dict[str, jax.Array]:
    """Scalars of a batch of episodes."""
    alive = episodes.alive.astype(jnp.float32)
    switches = (episodes.decision.switch & episodes.alive).astype(jnp.float32)
    return {
        "success": jnp.mean(episodes.success.astype(jnp.float32)),
        "subgoals": jnp.mean(episodes.progress.astype(jnp.float32)),
        "episode_length": jnp.mean(jnp.sum(alive, axis=1)),
        "switches_per_episode": jnp.mean(jnp.sum(switches, axis=1)),
    }


def _first_step(episodes: Episodes) -> jax.Array:
    return jnp.zeros_like(episodes.alive).at[:, 0].set(True)


def gradient_steps(cfg: ReinforceConfig) -> int:
    """Optimiser steps of a whole run."""
    return cfg.iterations * cfg.epochs * cfg.minibatches
