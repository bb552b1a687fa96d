"""Stage 3 with credit assignment over abstract steps: any estimator of `agents.credit` instead of one
advantage per episode.

The abstract-action policy is trained on its decisions z_n, one per firing of the switching unit, as in
`reinforce`; base model and metacontroller are frozen. Instead of the trajectory's advantage, the executed
code and fresh codes of the policy get the estimator's weights (COCOA, arXiv 2306.16803, eq. 27), and the
estimator's model learns from the same episodes first. Letters: B episodes, T raw steps, N decisions,
M fresh codes, Z code, K kinds of reward.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from agents.credit.sampled import Decisions, fresh_actions
from agents.credit.sampled_models import SampledModel, make_sampled
from agents.distributions import diagonal_gaussian
from agents.surrogates import ppo_clip
from envs.world import World
from internal_rl.config import ReinforceConfig
from internal_rl.demonstrations.contract import masked_mean
from internal_rl.errors import UserError
from internal_rl.models.contract import Params
from internal_rl.models.parts import Models
from internal_rl.models.policy import AbstractPolicy
from internal_rl.play.rollout import Episodes
from internal_rl.stages import reinforce
from internal_rl.stages.optim import make_optimizer
from internal_rl.stages.pretrain import TrainState

REWARD_TOLERANCE = 1e-4
"""Rewards that differ by less are of one kind (COCOA: 4 decimals)."""


@flax.struct.dataclass
class CreditExperience:
    """What the surrogate needs of a batch of episodes."""

    decisions: Decisions
    """Arrays [B, N, ...]; N is reinforce.abstract_steps, or the horizon."""
    log_prob: jax.Array
    """Of the executed codes when they were made [B, N]."""
    taken: jax.Array
    """Weights of the executed codes [B, N]."""
    fresh: jax.Array
    """Fresh codes of the acting policy [B, N, M, Z]."""
    fresh_log_prob: jax.Array
    """[B, N, M]"""
    sampled: jax.Array
    """Weights of the fresh codes [B, N, M]."""


def init(
    cfg: ReinforceConfig,
    models: Models,
    key: jax.Array,
    base_params: Params | None = None,
    *,
    world: World,
) -> TrainState:
    """As `reinforce.init`, with the estimator's model beside the optimiser's state."""
    state = reinforce.init(cfg, models, key, base_params)
    # The policy starts as it would without a credit model.
    credit = _model(cfg, models, world).init(jax.random.fold_in(key, 1))
    return TrainState(
        state.step, state.key, state.params, {"policy": state.opt_state, "credit": credit}
    )


def decisions_of(
    episodes: Episodes, policy: AbstractPolicy, kinds: tuple[float, ...], limit: int
) -> Decisions:
    """Episodes by decisions [B, N].

    Args:
        policy: that acted.
        kinds: every reward but zero.
        limit: N, the first decisions of an episode; reward after those that do not fit counts for the last that does.
    """
    assert episodes.e is not None  # kept
    acted = episodes.decision.switch & episodes.alive
    number = jnp.cumsum(acted, axis=1, dtype=jnp.int32) - 1  # the first step always acts
    batch, horizon = acted.shape
    rows = jnp.arange(batch)[:, None]
    time = jnp.broadcast_to(jnp.arange(horizon, dtype=jnp.int32), acted.shape)
    slot = jnp.where(acted, number, limit)  # out of range, hence dropped, where nothing is decided
    at = jnp.full((batch, limit), horizon, jnp.int32).at[rows, slot].set(time, mode="drop")
    valid = at < horizon
    at = jnp.minimum(at, horizon - 1)
    obs = episodes.e[rows, at]
    mean, log_std = policy(obs, valid)
    owner = jnp.minimum(number, limit - 1)
    add = lambda x: jnp.zeros((batch, limit, *x.shape[2:])).at[rows, owner].add(x)  # noqa: E731
    gap = episodes.reward[..., None] - jnp.asarray(kinds)[None, None]
    of_kind = (jnp.abs(gap) < REWARD_TOLERANCE).astype(jnp.float32)
    return Decisions(
        obs=obs,
        action=episodes.decision.z[rows, at],
        mean=mean,
        log_std=log_std,
        valid=valid,
        reward=add(episodes.reward),
        kind_reward=add(of_kind * episodes.reward[..., None]),
        kind_count=add(of_kind),
    )


def make_update(
    cfg: ReinforceConfig, models: Models, world: World
) -> Callable[[TrainState, reinforce.Frozen], tuple[TrainState, dict]]:
    """One iteration (rollout, the credit model's steps, weights, epochs)."""
    optimizer = make_optimizer(cfg.optimizer, reinforce.gradient_steps(cfg))
    model = _model(cfg, models, world)
    limit = cfg.abstract_steps or world.horizon

    def collect(key: jax.Array, params: Params, credit, frozen: reinforce.Frozen):
        key_roll, key_model, key_fresh = jax.random.split(key, 3)
        meta, policy = models.bind_meta(frozen.metacontroller), models.bind_policy(params)
        episodes, stats = reinforce.internal_episodes(
            key_roll, world, models.bind_base(frozen.base), meta, policy, cfg
        )
        decisions = decisions_of(episodes, policy, reward_kinds(world), limit)
        credit, metrics = model.update(credit, decisions, key_model)
        keys = jax.random.split(key_fresh, cfg.batch_size)
        fresh = jax.vmap(lambda k, d: fresh_actions(k, d, cfg.credit.samples))(keys, decisions)
        weights = jax.vmap(lambda d, f: model.weights(credit, d, f))(decisions, fresh)
        # The scale of a trajectory advantage, so that clip and learning rate mean the same.
        scale = 1.0 / (jnp.std(episodes.episode_return) + cfg.advantage_delta)
        log_prob, fresh_log_prob, _ = _log_probs(
            decisions.mean, decisions.log_std, decisions.action, fresh
        )
        experience = CreditExperience(
            decisions=decisions,
            log_prob=log_prob,
            taken=weights.taken * scale,
            fresh=fresh,
            fresh_log_prob=fresh_log_prob,
            sampled=weights.sampled * scale,
        )
        made = jnp.sum((episodes.decision.switch & episodes.alive).astype(jnp.float32))
        metrics |= reinforce.episode_metrics(episodes) | {
            "return": jnp.mean(episodes.episode_return),
            **stats,
            "unseen_decisions": 1.0 - jnp.sum(decisions.weight) / jnp.maximum(made, 1.0),
        }
        return experience, credit, metrics

    def loss_fn(params: Params, batch: CreditExperience):
        d = batch.decisions
        mean, log_std = models.bind_policy(params)(d.obs, d.valid)
        log_prob, fresh_log_prob, entropy = _log_probs(mean, log_std, d.action, batch.fresh)
        taken, metrics = ppo_clip(log_prob, batch.log_prob, batch.taken, d.valid, cfg.clip)
        valid = jnp.broadcast_to(d.valid[:, :, None], fresh_log_prob.shape)
        fresh, _ = ppo_clip(fresh_log_prob, batch.fresh_log_prob, batch.sampled, valid, cfg.clip)
        entropy = masked_mean(entropy, d.valid)
        metrics |= {"policy_loss": taken + fresh, "entropy": entropy}
        return taken + fresh - cfg.entropy_weight * entropy, metrics

    epoch = reinforce.make_epoch(loss_fn, optimizer, cfg)

    def update(state: TrainState, frozen: reinforce.Frozen) -> tuple[TrainState, dict]:
        key_collect, key_epochs = jax.random.split(jax.random.fold_in(state.key, state.step))
        experience, credit, collected = collect(
            key_collect, state.params, state.opt_state["credit"], frozen
        )

        (params, opt_state), metrics = jax.lax.scan(
            lambda carry, key: epoch(carry, experience, key),
            (state.params, state.opt_state["policy"]),
            jax.random.split(key_epochs, cfg.epochs),
        )
        metrics = jax.tree.map(jnp.mean, metrics) | collected
        both = {"policy": opt_state, "credit": credit}
        return TrainState(state.step + 1, state.key, params, both), metrics

    return update


def _log_probs(
    mean: jax.Array, log_std: jax.Array, action: jax.Array, fresh: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """log π of the executed [B, N] and the fresh codes [B, N, M], and the entropy [B, N]."""
    own = diagonal_gaussian(mean, log_std)
    wide = diagonal_gaussian(
        jnp.broadcast_to(mean[:, :, None], fresh.shape),
        jnp.broadcast_to(log_std[:, :, None], fresh.shape),
    )
    return own.log_prob(action), wide.log_prob(fresh), own.entropy()


def reward_kinds(world: World) -> tuple[float, ...]:
    """Every reward but 0 that the world pays.

    Raises:
        UserError: it does not say.
    """
    kinds = getattr(world, "reward_kinds", None)
    if kinds is None:
        raise UserError(
            "reinforce.credit.method: allowed is 'trajectory', since this world has no member `reward_kinds`"
        )
    return kinds


def _model(cfg: ReinforceConfig, models: Models, world: World) -> SampledModel:
    return make_sampled(
        cfg.credit,
        obs_dim=models.base.width,
        action_dim=models.code_dim,
        kinds=len(reward_kinds(world)),
    )
