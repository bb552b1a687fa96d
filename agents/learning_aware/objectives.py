"""From meta-episodes to one or more gradient steps of a meta agent: score-weighted, A2C and PPO (COALA, App. E).

All three are the same clipped surrogate on chains. An estimator with reduction "sum" has its signal multiplied by B,
because the surrogate is a mean over chains. Letters: K meta-episodes, B chains, C = K·B chains merged, L long time.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Shaped

from agents.learning_aware.checks import above_zero, at_least, in_unit
from agents.learning_aware.estimators import (
    Estimator,
    advantages,
    score_weights,
    value_targets,
)
from agents.learning_aware.optim import Optimizer, check_optimizer
from agents.learning_aware.policies import Params, Policy, log_prob
from agents.learning_aware.shaping import MetaEpisode
from agents.surrogates import ppo_clip


@dataclass(frozen=True)
class ObjectiveSettings:
    """How a meta agent learns from its meta-episodes."""

    algorithm: Literal["reinforce", "a2c", "ppo"] = "ppo"
    """reinforce: no critic, one step. a2c: critic, one step. ppo: critic, clipped epochs."""
    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(learning_rate=3e-4, eps=1e-5, grad_clip=1.0)
    )
    centre: Literal["none", "all", "per_step", "leave_one_out"] = "none"
    """Subtract the signal's mean, separately for naive and meta co-players: over everything; over chains at every step;
    or over the chains of the *other* meta-episodes at every step, which alone is unbiased. The paper's "advantage
    normalisation" is all. per_step leaves 1 − 1/K of what a meta-episode's chains share, see docs/social-coala.md."""
    discount: float = 1.0
    """γ over the whole meta-trajectory (a2c, ppo)."""
    td_lambda: float = 1.0
    """λ of the value targets."""
    gae_lambda: float = 1.0
    """λ of the advantages. γλ < 1 damps the shaping signal by (γλ)^T and more."""
    average_value_future: bool = False
    """Average later inner episodes over chains in value targets against naive co-players. Not given in the paper."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before returns and values; reported numbers are not."""
    epochs: int = 4
    """Passes over the data (ppo)."""
    minibatches: int = 2
    """Minibatches of a pass, split over chains, never over time (ppo)."""
    slices: int = 1
    """A minibatch's gradient is summed over this many slices of its chains, one after another: less memory, same numbers
    up to rounding."""
    clip: float = 0.2
    """PPO's ε."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    value_clip: bool = True
    """Clip the change of the value to ± clip, as PPO's first implementation does (ppo)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""


@struct.dataclass
class Chains:
    """Chains of any co-players, ready for the surrogate; time is whole, so recurrent policies see their context."""

    obs: Shaped[Array, "C L *o"]
    action: Int[Array, "C L"]
    signal: Float[Array, "C L"]
    old_log_prob: Float[Array, "C L"]
    old_value: Float[Array, "C L"]
    target: Float[Array, "C L"]


def prepare(
    policy: Policy,
    params: Params,
    episodes: MetaEpisode,
    estimator: Estimator,
    cfg: ObjectiveSettings,
    inner_length: int,
) -> Chains:
    """Signals and targets of K meta-episodes [K, B, L] under the parameters that played them; not centred yet.

    Give `BATCH_UNAWARE` as estimator for meta co-players, whose chains are independent.
    """
    k, batch, length = episodes.reward.shape
    merge = lambda x: x.reshape(k * batch, *x.shape[2:])  # noqa: E731
    obs, action = merge(episodes.obs), merge(episodes.action)
    reward = cfg.reward_scale * episodes.reward
    if cfg.algorithm == "reinforce":
        # One step from the acting parameters: the ratio is 1 whatever stands here.
        old_log_prob = old_value = target = jnp.zeros((k * batch, length), reward.dtype)
        signal = jax.vmap(lambda r: score_weights(estimator, r, inner_length))(reward)
        signal = signal * batch  # the mean over chains below is 1/(K B)
    else:
        old_log_prob, old_value = _score(policy, params, obs, action, cfg.slices)
        values = old_value.reshape(k, batch, length)
        signal = jax.vmap(
            lambda r, v: advantages(
                estimator,
                r,
                v,
                inner_length=inner_length,
                discount=cfg.discount,
                gae_lambda=cfg.gae_lambda,
            )
        )(reward, values)
        target = merge(
            jax.vmap(
                lambda r, v: value_targets(
                    r,
                    v,
                    inner_length=inner_length,
                    discount=cfg.discount,
                    td_lambda=cfg.td_lambda,
                    average_future=cfg.average_value_future and estimator.average_future,
                )
            )(reward, values)
        )
        if estimator.reduction == "sum":
            signal = signal * batch
    return Chains(obs, action, merge(signal), old_log_prob, old_value, target)


def _score(
    policy: Policy,
    params: Params,
    obs: Shaped[Array, "C L *o"],
    action: Int[Array, "C L"],
    slices: int,
) -> tuple[Float[Array, "C L"], Float[Array, "C L"]]:
    """log π(a) and values, of about C / `slices` chains at a time."""

    def one(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        logits, values = policy.parallel(params, part[0], None)
        return log_prob(logits, part[1]), values

    # Chains against naive and against meta co-players come apart, so `slices` need not divide their numbers.
    count = math.gcd(slices, obs.shape[0])
    if count == 1:
        return one((obs, action))
    parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), (obs, action))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(one, parts))


def centre(chains: Chains, batch: int, cfg: ObjectiveSettings) -> Chains:
    """Signals less their mean; give all K · `batch` chains against one kind of co-player at once."""
    signal = chains.signal.reshape(-1, batch, chains.signal.shape[1])  # [K, B, L]
    if cfg.centre == "all":
        signal = signal - jnp.mean(signal)
    elif cfg.centre == "per_step":
        signal = signal - jnp.mean(signal, axis=(0, 1), keepdims=True)
    elif cfg.centre == "leave_one_out":
        signal = signal - _mean_of_others(signal)
    return replace(chains, signal=signal.reshape(chains.signal.shape))


def check_objective(cfg: ObjectiveSettings, prefix: str = "") -> None:
    """Raise ValueError naming the first number out of range, its value and what is allowed."""
    check_optimizer(cfg.optimizer, f"{prefix}optimizer.")
    in_unit(cfg, "discount", "td_lambda", "gae_lambda", prefix=prefix)
    above_zero(cfg, "reward_scale", "clip", prefix=prefix)
    at_least(cfg, 0, "value_weight", "entropy_weight", prefix=prefix)


def check_centring(cfg: ObjectiveSettings, naive: int, meta: int, shared_future: bool) -> None:
    """Raise ValueError where centring would take away the very signal.

    Args:
        naive, meta: meta-episodes of either kind in an update.
        shared_future: some estimator averages later inner episodes over the B chains.
    """
    where = f"objective.centre is '{cfg.centre}' with"
    if cfg.centre == "per_step" and shared_future and naive == 1:
        # All chains then have the same later part, and their mean is that part.
        raise ValueError(
            f"{where} one meta-episode against naive co-players, which leaves no signal of later inner episodes; "
            "allowed: none, all, or at least 2 such meta-episodes (naive_episodes, meta_episodes)"
        )
    if cfg.centre == "leave_one_out" and 1 in (naive, meta):
        kind = "naive" if naive == 1 else "meta"
        raise ValueError(
            f"{where} one meta-episode against {kind} co-players; allowed: at least 2 of each kind (naive_episodes, "
            "meta_episodes)"
        )


def _mean_of_others(signal: Float[Array, "K B L"]) -> Float[Array, "K 1 L"]:
    """At every step the mean over the chains of the other meta-episodes: independent of one's own scores."""
    own = jnp.mean(signal, axis=1, keepdims=True)
    return (jnp.sum(own, axis=0, keepdims=True) - own) / (signal.shape[0] - 1)


def concatenate(*parts: Chains) -> Chains:
    """Chains of several kinds of co-players as one batch."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=0), *parts)


def loss(
    params: Params, policy: Policy, chains: Chains, cfg: ObjectiveSettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Clipped surrogate, value and entropy losses, each a mean over chains and time."""
    logits, values = policy.parallel(params, chains.obs, None)
    chosen = log_prob(logits, chains.action)
    if cfg.algorithm == "reinforce":
        total = -jnp.mean(chains.signal * chosen)
        metrics = {"policy_loss": total}
    else:
        acted = jnp.ones_like(chosen, bool)
        total, metrics = ppo_clip(chosen, chains.old_log_prob, chains.signal, acted, cfg.clip)
        error = jnp.square(values - chains.target)
        if cfg.algorithm == "ppo" and cfg.value_clip:
            change = jnp.clip(values - chains.old_value, -cfg.clip, cfg.clip)
            error = jnp.maximum(error, jnp.square(chains.old_value + change - chains.target))
        value_loss = jnp.mean(error)
        metrics |= {"policy_loss": total, "value_loss": value_loss}
        total = total + cfg.value_weight * value_loss
    if cfg.entropy_weight:
        log_p = jax.nn.log_softmax(logits)
        entropy = -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=-1))
        total = total - cfg.entropy_weight * entropy
        metrics["entropy"] = entropy
    return total, metrics


def improve(
    key: jax.Array,
    policy: Policy,
    params: Params,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
    chains: Chains,
    cfg: ObjectiveSettings,
) -> tuple[Params, Any, dict[str, jax.Array]]:
    """One iteration's gradient steps; metrics are means over them."""
    ppo = cfg.algorithm == "ppo"
    epochs, minibatches = (cfg.epochs, cfg.minibatches) if ppo else (1, 1)
    count = chains.action.shape[0]

    def minibatch(carry, rows: jax.Array | None):
        params, opt_state = carry
        gradient, metrics = _gradient(params, policy, chains, rows, cfg)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), metrics

    if epochs * minibatches == 1:
        (params, opt_state), metrics = minibatch((params, opt_state), None)
        return params, opt_state, metrics

    def epoch(carry, key):
        order = jax.random.permutation(key, count)
        return jax.lax.scan(minibatch, carry, order.reshape(minibatches, -1))

    keys = jax.random.split(key, epochs)
    (params, opt_state), metrics = jax.lax.scan(epoch, (params, opt_state), keys)
    return params, opt_state, jax.tree.map(jnp.mean, metrics)


def _gradient(
    params: Params,
    policy: Policy,
    chains: Chains,
    rows: Int[Array, " n"] | None,
    cfg: ObjectiveSettings,
) -> tuple[Params, dict[str, jax.Array]]:
    """Gradient of the mean loss over chains `rows` (None: all), and its metrics, accumulated over slices.

    Every term of the loss is a mean over chains, so means over slices of one size are exact; what belongs to the whole
    batch (centring, advantages, old log-probabilities) is in `chains` already. Activations are those of one slice.
    """

    def of(rows: Int[Array, " n"] | None) -> tuple[Params, dict[str, jax.Array]]:
        # Chains are picked here, not before: a shuffled copy of all of them would cost as much as they do.
        part = chains if rows is None else jax.tree.map(lambda x: x[rows], chains)
        return jax.grad(loss, has_aux=True)(params, policy, part, cfg)

    if cfg.slices == 1:
        return of(rows)
    if rows is None:
        rows = jnp.arange(chains.action.shape[0])
    parts = rows.reshape(cfg.slices, -1)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of, parts[0]))
    add = lambda total, part: (jax.tree.map(jnp.add, total, of(part)), None)  # noqa: E731
    total, _ = jax.lax.scan(add, zero, parts)
    return jax.tree.map(lambda x: x / cfg.slices, total)
