"""Naive learners: after every inner episode they improve on what it paid them, as if the world stood still.

A learner is a value of three functions; one with another rule is one more constructor, in any file (`naive.rule`).
Letters: B chains, T steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Shaped

from agents.learning_aware.checks import above_zero, at_least, in_unit
from agents.learning_aware.optim import Optimizer, check_optimizer, make_optimizer
from agents.learning_aware.policies import Params, Policy, log_prob
from agents.surrogates import ppo_clip
from envs.social.game import SocialGame


@struct.dataclass
class InnerEpisode:
    """What a naive learner sees of one inner episode."""

    obs: Shaped[Array, "B T *o"]
    action: Int[Array, "B T"]
    reward: Float[Array, "B T"]


@struct.dataclass
class LearnerState:
    """Lives for one meta-episode: the optimiser starts fresh with it, and both are thrown away after it."""

    params: Any
    opt_state: Any


@dataclass(frozen=True)
class NaiveLearner:
    """A learning rule around a policy.

    Attributes:
        policy: its state is reset at every inner boundary by those who play it.
        init: parameters → learner at the start of a meta-episode.
        update: learner, the batch of B inner episodes → learner.
    """

    policy: Policy
    init: Callable[[Params], LearnerState]
    update: Callable[[LearnerState, InnerEpisode], LearnerState]


@dataclass(frozen=True)
class PolicyGradientSettings:
    """Plain REINFORCE with a fixed step, without optimiser state."""

    step_size: float = 4.0
    """Length of the ascent step in units of the gradient."""
    discount: float = 1.0
    """Of the reward-to-go inside the inner episode."""
    baseline: Literal["none", "batch_mean"] = "batch_mean"
    """batch_mean: mean reward-to-go over the B chains at the same step."""
    normalise: bool = True
    """Divide by the advantages' standard deviation over B and T."""
    reduce_time: Literal["mean", "sum"] = "mean"
    """Over T; over B it is always the mean."""
    eps: float = 1e-3
    """Added to that standard deviation. Without it rounding noise is blown up where all chains play the same."""


@dataclass(frozen=True)
class ActorCriticSettings:
    """Advantage actor-critic without bootstrapping, one step per inner episode; PPO with more epochs (COALA, App. E)."""

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(learning_rate=5e-3, eps=1e-5, grad_clip=1.0)
    )
    discount: float = 0.99
    """Of the reward-to-go inside the inner episode."""
    normalise: bool = True
    """Centre the advantages over B and T and divide by their standard deviation."""
    value_weight: float = 0.5
    """Weight of the mean squared value error, which has a factor 0.5 of its own in none of the papers' formulas."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    reward_scale: float = 0.05
    """Rewards are multiplied by this first."""
    epochs: int = 1
    """Gradient steps on one inner episode: 1 is A2C, more need `clip`."""
    clip: float = 0.2
    """PPO's ε; without effect on the first epoch."""
    eps: float = 1e-3
    """Added to the advantages' standard deviation before dividing."""


def check_policy_gradient(cfg: PolicyGradientSettings) -> None:
    """Raise ValueError naming the first number out of range, its value and what is allowed."""
    at_least(cfg, 0, "step_size", "eps")
    in_unit(cfg, "discount")


def check_actor_critic(cfg: ActorCriticSettings) -> None:
    """Raise ValueError naming the first number out of range, its value and what is allowed."""
    check_optimizer(cfg.optimizer, "optimizer.")
    at_least(cfg, 1, "epochs")
    at_least(cfg, 0, "value_weight", "entropy_weight", "eps")
    above_zero(cfg, "reward_scale", "clip")
    in_unit(cfg, "discount")


def policy_gradient(policy: Policy, cfg: PolicyGradientSettings) -> NaiveLearner:
    """φ ← φ + η ∇ mean_b (mean or sum)_t log π(a_t^b) A_t^b on own rewards. Biased where normalised; see docs."""
    check_policy_gradient(cfg)

    def objective(params: Params, episode: InnerEpisode) -> jax.Array:
        logits, _ = policy.parallel(params, episode.obs, None)
        advantage = reward_to_go(episode.reward, cfg.discount)
        if cfg.baseline == "batch_mean":
            advantage = advantage - jnp.mean(advantage, axis=0, keepdims=True)
        if cfg.normalise:
            advantage = advantage / (jnp.std(advantage) + cfg.eps)
        total = jnp.sum(log_prob(logits, episode.action) * advantage) / episode.reward.shape[0]
        return total / episode.reward.shape[1] if cfg.reduce_time == "mean" else total

    def update(state: LearnerState, episode: InnerEpisode) -> LearnerState:
        gradient = jax.grad(objective)(state.params, episode)
        params = jax.tree.map(lambda p, g: p + cfg.step_size * g, state.params, gradient)
        return replace(state, params=params)

    return NaiveLearner(policy, lambda params: LearnerState(params, ()), update)


def actor_critic(policy: Policy, cfg: ActorCriticSettings) -> NaiveLearner:
    """A2C, or PPO with `cfg.epochs` > 1, on the B × T batch of one inner episode."""
    check_actor_critic(cfg)
    optimizer = make_optimizer(cfg.optimizer)

    def loss(params: Params, episode: InnerEpisode, target, advantage, old) -> jax.Array:
        logits, values = policy.parallel(params, episode.obs, None)
        chosen = log_prob(logits, episode.action)
        policy_loss, _ = ppo_clip(chosen, old, advantage, jnp.ones_like(chosen, bool), cfg.clip)
        value_loss = jnp.mean(jnp.square(target - values))
        entropy = -jnp.mean(jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), axis=-1))
        return policy_loss + cfg.value_weight * value_loss - cfg.entropy_weight * entropy

    def update(state: LearnerState, episode: InnerEpisode) -> LearnerState:
        target = reward_to_go(cfg.reward_scale * episode.reward, cfg.discount)
        logits, values = policy.parallel(state.params, episode.obs, None)
        advantage = target - values
        if cfg.normalise:
            advantage = advantage - jnp.mean(advantage)
            # ε is in units of unscaled rewards, so that the reward scale stays a pure change of units.
            advantage = advantage / (jnp.std(advantage) + cfg.reward_scale * cfg.eps)
        old = log_prob(logits, episode.action)
        for _ in range(cfg.epochs):
            gradient = jax.grad(loss)(state.params, episode, target, advantage, old)
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            state = LearnerState(optax.apply_updates(state.params, updates), opt_state)
        return state

    return NaiveLearner(policy, lambda params: LearnerState(params, optimizer.init(params)), update)


def frozen(policy: Policy) -> NaiveLearner:
    """A co-player that never learns: nothing to shape."""
    return NaiveLearner(policy, lambda params: LearnerState(params, ()), lambda state, _: state)


def check_learner(learner: Any, game: SocialGame, chains: int) -> NaiveLearner:
    """`learner`, if B = `chains` of it can play `game`: traced once, nothing is compiled.

    Raises:
        ValueError: no `NaiveLearner`, or an update that changes the structure, shapes or types of its state.
    """
    if not isinstance(learner, NaiveLearner):
        raise ValueError(f"the rule returns a {type(learner).__name__}; allowed: a NaiveLearner")

    def before_and_after(key: jax.Array) -> tuple[LearnerState, LearnerState]:
        state = learner.init(learner.policy.init(key))
        _, obs = game.reset(key)
        shape = (chains, game.episode_length)
        seen = jnp.broadcast_to(obs[1], (*shape, *obs.shape[1:]))
        episode = InnerEpisode(seen, jnp.zeros(shape, jnp.int32), jnp.zeros(shape))
        return state, learner.update(state, episode)

    states = jax.eval_shape(before_and_after, jax.random.key(0))
    first, second = (f"{jax.tree.map(lambda x: f'{x.dtype}{list(x.shape)}', s)}" for s in states)
    if first != second:
        raise ValueError(
            f"update turns {first} into {second}; allowed: the same structure and types"
        )
    return learner


def reward_to_go(reward: Float[Array, "B T"], discount: float) -> Float[Array, "B T"]:
    """G_t = Σ_{k ≥ t} γ^{k−t} R_k within the inner episode."""

    def backward(total, r):
        total = r + discount * total
        return total, total

    if discount == 1.0:
        return jnp.flip(jnp.cumsum(jnp.flip(reward, 1), 1), 1)
    _, returns = jax.lax.scan(backward, jnp.zeros_like(reward[:, 0]), reward.T, reverse=True)
    return returns.T
