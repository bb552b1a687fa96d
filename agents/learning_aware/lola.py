"""LOLA-DiCE from sampled rollouts (Foerster et al. 2018; the sampled baseline of COALA, App. D).

The ego imagines `look_aheads` policy-gradient steps of the other, from the other's current parameters, on rollouts of its
own, and differentiates through them. It needs the other's parameters and second derivatives, which COALA-PG does not.
Letters: B chains, T steps.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.learning_aware.checks import at_least, in_unit
from agents.learning_aware.policies import Params, Policy, log_prob
from agents.learning_aware.shaping import play_inner_episode
from envs.social.game import SocialGame


@dataclass(frozen=True)
class LolaSettings:
    """Not given in the paper for the sampled baseline."""

    look_aheads: int = 1
    """Imagined steps of the other; 0 is plain policy gradient."""
    rate: float = 1.0
    """α: length of an imagined step."""
    batch: int = 64
    """B: rollouts of each objective."""
    discount: float = 0.96
    """γ inside the episode."""
    baseline: bool = True
    """Subtract the batch's mean return-to-go at every step from what the scores multiply."""


def check_lola(cfg: LolaSettings) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    if cfg.look_aheads < 0:
        raise ValueError(f"look_aheads is {cfg.look_aheads}; allowed: at least 0")
    if cfg.batch < 1:
        raise ValueError(f"batch is {cfg.batch}; allowed: at least 1")
    at_least(cfg, 0, "rate")
    in_unit(cfg, "discount")


def magic_box(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """exp(x − stopgrad x): 1, with the derivative of x, at every order (DiCE)."""
    return jnp.exp(x - jax.lax.stop_gradient(x))


def dice_objective(
    key: PRNGKeyArray,
    game: SocialGame,
    policies: tuple[Policy, Policy],
    params: tuple[Params, Params],
    player: int,
    cfg: LolaSettings,
) -> Float[Array, ""]:
    """Mean discounted return of `player`, whose derivatives of every order are estimates of the true return's.

    Σ_t γ^t magic_box(Σ_{k ≤ t} log π¹ + log π²) r_t, with a baseline term of value 0.
    """
    stopped = jax.lax.stop_gradient(params)
    players = tuple(partial(p.step, q) for p, q in zip(policies, stopped, strict=True))
    carries = tuple(p.init_carry(cfg.batch) for p in policies)
    _, (obs, action, reward, _) = play_inner_episode(key, game, players, carries, cfg.batch)
    score = jnp.zeros_like(reward[:, :, 0]).T  # [B, T]
    for i, (policy, own) in enumerate(zip(policies, params, strict=True)):
        logits, _ = policy.parallel(own, jnp.swapaxes(obs[:, :, i], 0, 1), None)
        score = score + log_prob(logits, action[i].T)
    discounts = cfg.discount ** jnp.arange(game.episode_length, dtype=score.dtype)
    rewards = discounts[None] * reward[:, :, player].T
    past = jnp.cumsum(score, axis=1)
    objective = jnp.mean(jnp.sum(magic_box(past) * rewards, axis=1))
    if cfg.baseline:
        to_go = jnp.flip(jnp.cumsum(jnp.flip(rewards, 1), 1), 1)
        level = jnp.mean(to_go, axis=0, keepdims=True)
        # Each step's own score loses the baseline; the value of the term is zero.
        objective = objective + jnp.mean(
            jnp.sum((magic_box(past - score) - magic_box(past)) * level, axis=1)
        )
    return objective


def lola_dice_gradient(
    key: PRNGKeyArray,
    game: SocialGame,
    policies: tuple[Policy, Policy],
    ego_params: Params,
    other_params: Params,
    cfg: LolaSettings,
) -> Params:
    """Ascent direction of the ego: d/dφ J¹(φ, φ⁻ + Σ_q Δ_q(φ)) through the imagined steps.

    Raises:
        ValueError: settings out of range.
    """
    check_lola(cfg)
    keys = jax.random.split(key, cfg.look_aheads + 1)

    def objective(ego: Params) -> Float[Array, ""]:
        other = other_params
        for k in keys[:-1]:
            step = jax.grad(lambda x, k=k: dice_objective(k, game, policies, (ego, x), 1, cfg))(
                other
            )
            other = jax.tree.map(lambda p, g: p + cfg.rate * g, other, step)
        return dice_objective(keys[-1], game, policies, (ego, other), 0, cfg)

    return jax.grad(objective)(ego_params)
