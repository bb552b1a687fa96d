"""Learned models of the estimators for continuous actions, behind one interface.

Contribution coefficients come from the hindsight networks of `sampled_hindsight`. Letters as in `sampled`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit import sampled
from agents.credit.config import (
    HINDSIGHT_METHODS,
    RETURN_METHODS,
    SampledCreditConfig,
    check_sampled,
)
from agents.credit.estimators import future_sums
from agents.credit.model import batch_mean
from agents.credit.networks import Params, adamw, fit_step, linear, linear_init, mlp, mlp_init
from agents.credit.replay import Replay, empty, remember
from agents.credit.sampled import Decisions, Weights
from agents.credit.sampled_hindsight import kind_mean, make_hindsight, state_features


@dataclass(frozen=True)
class SampledModel:
    """An estimator for continuous actions.

    Attributes:
        init: key -> state of the model, a pytree.
        update: (state, batch of decisions, key) -> (state, metrics).
        weights: (state, one episode, fresh actions [N, M, Z]) -> `Weights`.
    """

    init: Callable[[PRNGKeyArray], Any]
    update: Callable[[Any, Decisions, PRNGKeyArray], tuple[Any, dict[str, Array]]]
    weights: Callable[[Any, Decisions, Array], Weights]


def make_sampled(
    config: SampledCreditConfig, obs_dim: int, action_dim: int, kinds: int
) -> SampledModel:
    """The model of any method but `trajectory`, which has none.

    Args:
        kinds: K of `Decisions.kind_reward`.
    """
    check_sampled(config)
    if config.method == "reinforce":
        return SampledModel(
            init=lambda key: (),
            update=lambda state, batch, key: (state, _metrics(jnp.float32(0.0), jnp.float32(0.0))),
            weights=lambda state, d, fresh: sampled.reinforce(d, fresh.shape[1]),
        )
    if config.method == "trajectory":
        raise ValueError("credit.method is 'trajectory', which has no model")
    if config.method in (*HINDSIGHT_METHODS, *RETURN_METHODS):
        return _ratio_model(config, obs_dim, action_dim, kinds)
    return _value_model(config, obs_dim, action_dim)


def _ratio_model(
    config: SampledCreditConfig, obs_dim: int, action_dim: int, kinds: int
) -> SampledModel:
    method = config.method
    of_return = method in ("hca_return", "counterfactual_return")
    features = obs_dim + 2 * action_dim
    outcome_dim = {
        "cocoa_reward": kinds,
        "cocoa_feature": config.feature_width,
        "hca_return": 1,
        "counterfactual_return": 1,
    }.get(method, features)
    optimizer = adamw(config.model_rate)
    hindsight = make_hindsight(config, features, action_dim, outcome_dim)

    def outcomes(state: Any, d: Decisions) -> tuple[Array, Array, Array]:
        """Vectors, reward [N, K], and how often the pair (decision, outcome) occurs [N, K]."""
        if of_return:
            return d.to_go[:, None, None], d.reward[:, None], d.weight[:, None]
        if method == "cocoa_reward":
            vectors, reward, count = sampled.kind_outcomes(d)
        else:
            codes = state_features(d)
            if method == "cocoa_feature":
                codes = _bits(state["features"][0], d)
            vectors, reward, count = sampled.rewarded_outcomes(d, codes, config.max_outcomes)
        return vectors, reward, future_sums(count * d.weight[:, None]) * d.weight[:, None]

    def ratio(state: Any, d: Decisions, actions: Array, vectors: Array) -> Array:
        return hindsight.ratio(state["net"][0], d, actions, vectors)

    def init(key: PRNGKeyArray) -> Any:
        keys = jax.random.split(key, 3)
        params = hindsight.init(keys[0])
        state: dict[str, Any] = {"net": (params, optimizer.init(params))}
        if method == "hca":
            params = _critic_init(config, keys[1], features + action_dim)
            state["reward"] = (params, optimizer.init(params))
        if method == "cocoa_feature":
            params = _feature_init(keys[2], features + action_dim, config)
            state["features"] = (params, optimizer.init(params))
        if config.replay:
            state["replay"] = empty(kinds, config.replay, obs_dim, action_dim)
        return state

    def batch_loss(params: Params, state: Any, batch: Decisions, key: PRNGKeyArray) -> Array:
        def one(d: Decisions, key: PRNGKeyArray) -> tuple[Array, Array]:
            vectors, _, counts = outcomes(state, d)
            return hindsight.loss(params, d, key, vectors, counts), jnp.sum(counts, axis=0)

        keys = jax.random.split(key, batch.reward.shape[0])
        losses, counts = jax.vmap(one)(batch, keys)
        # Pooled over the batch: the joint distribution of state, action and outcome as it is.
        return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1.0)

    def fit(state: Any, batch: Decisions, key: PRNGKeyArray) -> tuple[Any, Array]:
        """One gradient step."""
        if method == "cocoa_feature":
            loss = lambda params: batch_mean(lambda d: _feature_loss(params, d), batch)  # noqa: E731
            state = {**state, "features": fit_step(optimizer, loss, state["features"])[0]}
        if method == "hca":
            loss = lambda params: batch_mean(lambda d: _reward_loss(params, d), batch)  # noqa: E731
            state = {**state, "reward": fit_step(optimizer, loss, state["reward"])[0]}

        def replay_mean(params: Params) -> Array:
            def one(ring: Replay, vector: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
                loss = hindsight.loss(params, ring, key, vector[None], ring.count[:, None])[0]
                return loss, jnp.sum(ring.count)

            rings = (state["replay"], jnp.eye(kinds), jax.random.split(key, kinds))
            losses, counts = jax.vmap(one)(*rings)
            return kind_mean(losses, counts)

        pooled = lambda params: batch_loss(params, state, batch, key)  # noqa: E731
        net, value = fit_step(optimizer, replay_mean if config.replay else pooled, state["net"])
        return {**state, "net": net}, value

    def update(state: Any, batch: Decisions, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        keys = jax.random.split(key, config.model_steps)
        # Not 1, 2, …: those keys are among the split ones.
        key_before = jax.random.fold_in(key, 2**31)
        before = batch_loss(state["net"][0], state, batch, key_before)
        if config.replay:
            counts = jax.vmap(lambda d: outcomes(state, d)[2])(batch)
            state = {**state, "replay": remember(state["replay"], batch, counts)}
        state, losses = jax.lax.scan(lambda s, k: fit(s, batch, k), state, keys)
        left_out = jax.vmap(lambda d: sampled.unmatched(d, outcomes(state, d)[1]))(batch)
        return state, _metrics(losses[-1], before, jnp.sum(left_out))

    def weights(state: Any, d: Decisions, fresh: Array) -> Weights:
        vectors, reward, _ = outcomes(state, d)
        if method == "hca_return":
            of_taken = ratio(state, d, d.action[:, None], vectors)[:, 0, 0]
            of_taken = jnp.maximum(of_taken, 1.0 / config.max_ratio)
            return sampled.hca_return(d, of_taken, fresh.shape[1])
        found = ratio(state, d, fresh, vectors)
        if method == "counterfactual_return":
            return sampled.counterfactual_return(d, found[..., 0])
        if method == "hca":
            return sampled.hca(d, found, reward, _critic(state["reward"][0], d, fresh))
        return sampled.cocoa(d, found, reward)

    return SampledModel(init, update, weights)


def _value_model(config: SampledCreditConfig, obs_dim: int, action_dim: int) -> SampledModel:
    of_state = config.method == "advantage"
    features = obs_dim + 2 * action_dim
    inputs = features if of_state else features + action_dim
    optimizer = adamw(config.model_rate)

    def init(key: PRNGKeyArray) -> Any:
        params = _critic_init(config, key, inputs)
        return params, optimizer.init(params)

    def value(params: Params, d: Decisions, fresh: Array) -> Array:
        """V(s_n), or for Q its mean over fresh actions."""
        if of_state:
            return mlp(params, state_features(d))[..., 0]
        return jnp.mean(_critic(params, d, fresh), axis=1)

    def fit(state: Any, batch: Decisions, key: PRNGKeyArray) -> tuple[Any, Array]:
        """One gradient step, with targets of the parameters before it."""
        fixed = state[0]

        def loss(params: Params) -> Array:
            def one(d: Decisions, key: PRNGKeyArray) -> Array:
                fresh = sampled.fresh_actions(key, d, config.samples)
                targets = _targets(d, value(fixed, d, fresh), config.trace)
                found = value(params, d, d.action[:, None])
                return _valid_mean(jnp.square(found - targets), d)

            keys = jax.random.split(key, batch.reward.shape[0])
            return jnp.mean(jax.vmap(one)(batch, keys))

        return fit_step(optimizer, loss, state)

    def update(state: Any, batch: Decisions, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        keys = jax.random.split(key, config.model_steps)
        state, losses = jax.lax.scan(lambda s, k: fit(s, batch, k), state, keys)
        return state, _metrics(losses[-1], losses[0])

    def weights(state: Any, d: Decisions, fresh: Array) -> Weights:
        if of_state:
            return sampled.advantage(d, value(state[0], d, fresh), fresh.shape[1])
        q = _critic(state[0], d, fresh)
        if config.method == "q_critic":
            return sampled.q_critic(d, q)
        return sampled.trajectory_cv(d, _critic(state[0], d, d.action[:, None])[:, 0], q)

    return SampledModel(init, update, weights)


def _targets(d: Decisions, v: Float[Array, " N"], lam: float) -> Float[Array, " N"]:
    """G_n = R_n + (1 − λ) V(s_{n+1}) + λ G_{n+1}; nothing follows on the last decision, whether the
    episode ended by itself or by its horizon, since the objective is the return within the horizon."""

    def back(later: Any, step: tuple[Array, ...]) -> tuple[Any, Array]:
        target, value = later
        reward, v, weight = step
        target = weight * (reward + (1.0 - lam) * value + lam * target)
        return (target, weight * v), target

    zero = jnp.zeros_like(v[0])
    _, targets = jax.lax.scan(back, (zero, zero), (d.reward, v, d.weight), reverse=True)
    return jax.lax.stop_gradient(targets)


def _critic_init(config: SampledCreditConfig, key: PRNGKeyArray, inputs: int) -> Params:
    return mlp_init(key, (inputs, config.width, config.width, 1))


def _critic(params: Params, d: Decisions, actions: Float[Array, "N M Z"]) -> Float[Array, "N M"]:
    """Q(s, z) or r̂(s, z)."""
    return mlp(params, _inputs(d, actions))[..., 0]


def _inputs(d: Decisions, actions: Array) -> Array:
    features = state_features(d)[:, None]
    features = jnp.broadcast_to(features, (*actions.shape[:2], features.shape[-1]))
    return jnp.concatenate([features, sampled.standardised(d, actions)], axis=-1)


def _reward_loss(params: Params, d: Decisions) -> Array:
    return _valid_mean(jnp.square(_critic(params, d, d.action[:, None])[:, 0] - d.reward), d)


def _feature_init(key: PRNGKeyArray, inputs: int, config: SampledCreditConfig) -> Params:
    keys = jax.random.split(key, 2)
    return {
        "backbone": mlp_init(keys[0], (inputs, config.width, config.feature_width)),
        "readout": linear_init(keys[1], config.feature_width, 1),
    }


def _bits(params: Params, d: Decisions) -> Float[Array, "N E"]:
    """1[backbone > 0] of the decision and its action, with the gradient of a sigmoid."""
    pre = mlp(params["backbone"], _inputs(d, d.action[:, None]))[:, 0]
    soft = jax.nn.sigmoid(pre)
    return soft + jax.lax.stop_gradient((pre > 0).astype(soft.dtype) - soft)


def _feature_loss(params: Params, d: Decisions) -> Array:
    """½ (prediction − reward)² of the binary features' linear readout."""
    found = linear(params["readout"], _bits(params, d))[:, 0]
    return _valid_mean(0.5 * jnp.square(found - d.reward), d)


def _valid_mean(x: Array, d: Decisions) -> Array:
    return jnp.sum(x * d.weight) / jnp.maximum(jnp.sum(d.weight), 1.0)


def _metrics(loss: Array, before: Array, left_out: Array | None = None) -> dict[str, Array]:
    return {
        "credit_loss": loss,
        "credit_loss_before": before,
        "unmatched_rewards": jnp.int32(0) if left_out is None else left_out,
    }
