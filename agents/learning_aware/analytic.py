"""Exact-gradient learners in the memory-1 game: naive, shaping, LOLA, LOLA-DiCE (COALA, App. C).

Nothing is sampled but the naive co-players' starts; all gradients are automatic differentiation of exact returns, through
the co-player's updates where the learner looks through them. Letters: P meta agents, N naive starts, M naive updates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from agents.learning_aware.checks import at_least
from agents.learning_aware.optim import Optimizer, check_optimizer, make_optimizer
from envs.social.analytic import PAYOFFS, Payoffs4, returns

RULES = ("shaping", "lola_dice", "lola", "naive")
STARTS = ("random", "defection", "tit_for_tat")
SPACES = ("logits", "probabilities")
DEFECTION_LOGIT = math.log(0.01)
MARGIN = 1e-4
"""Projected probabilities stay this far from 0 and 1, because agents are kept as logits."""


@dataclass(frozen=True)
class AnalyticSettings:
    """A pool of memory-1 meta agents that learn from exact gradients."""

    rule: Literal["shaping", "lola_dice", "lola", "naive"] = "shaping"
    """shaping: through M updates of naive co-players, and plain gradients against other meta agents. lola_dice: through
    look-aheads of the other meta agent. lola: its first-order Taylor form. naive: plain gradients only."""
    num_meta: int = 2
    """P; the LOLA rules need 2."""
    p_naive: float = 0.25
    """shaping: weight of the gradient against naive co-players; the rest goes to the other meta agents."""
    naive_only_steps: int = 0
    """shaping: p_naive is 1 for this many steps first (Fig. 3B trains extortion, then p_naive = 0)."""
    naive_updates: int = 20
    """M: updates of a naive co-player in a meta-episode. Not given in the paper for training; one figure has 20."""
    naive_starts: int = 8
    """N: naive co-players per step. Not given in the paper."""
    naive_start_std: float = 1.0
    """Their logits start at N(naive_start_mean, this²). Not given in the paper."""
    naive_start_mean: float = 0.0
    """log 0.01 is a naive learner that starts near defection, as metas do with start = defection."""
    naive_rate: float = 5.0
    """η of the naive learner (and of the imagined one of LOLA; the paper takes 10 there for one look-ahead)."""
    look_aheads: int = 1
    """LOLA-DiCE: imagined updates of the other agent."""
    lola_weight: float = 1.0
    """LOLA rules: weight of their gradient; the rest goes to the plain one (Fig. 4C)."""
    start: Literal["random", "defection", "tit_for_tat"] = "random"
    """Meta agents' start: logits N(0, 1); all log 0.01; or ± that for tit-for-tat."""
    discount: float = 0.95
    """γ of the game."""
    payoffs: Payoffs4 = PAYOFFS
    """Row player's payoff in CC, CD, DC, DD."""
    normalised: bool = True
    """Returns times 1 − γ everywhere, also in the naive learner's gradient. The paper writes the plain sum, but its step
    sizes reproduce its figures with the normalised one."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer("adamw", 0.005))
    """Of the meta agents."""
    space: Literal["logits", "probabilities"] = "logits"
    """Where meta agents step. probabilities: along ∂J/∂P(C), projected onto [0, 1]; a probability that gradients pushed
    to 0 for long then leaves it as fast as any other, while a logit would have run away."""


@struct.dataclass
class AnalyticState:
    """Training state of one seed."""

    step: jax.Array
    key: jax.Array
    params: Float[Array, "P 5"]
    opt_state: Any


def check(cfg: AnalyticSettings) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    for name, allowed in (("rule", RULES), ("start", STARTS), ("space", SPACES)):
        if getattr(cfg, name) not in allowed:
            raise ValueError(f"{name} is '{getattr(cfg, name)}'; allowed: {', '.join(allowed)}")
    for name in ("num_meta", "naive_updates", "naive_starts", "look_aheads"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: at least 1")
    for name in ("p_naive", "lola_weight"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: in [0, 1]")
    at_least(cfg, 0, "naive_rate", "naive_start_std", "naive_only_steps")
    check_optimizer(cfg.optimizer, "optimizer.")
    if not 0 <= cfg.discount < 1:
        raise ValueError(f"discount is {cfg.discount}; allowed: in [0, 1)")
    if len(cfg.payoffs) != 4:
        raise ValueError(f"payoffs has {len(cfg.payoffs)} numbers; allowed: 4 (CC, CD, DC, DD)")
    if cfg.rule != "shaping" and cfg.num_meta != 2:
        raise ValueError(f"num_meta is {cfg.num_meta} with rule {cfg.rule}; allowed: 2")
    if cfg.rule == "shaping" and cfg.num_meta == 1 and cfg.p_naive < 1:
        raise ValueError(
            f"p_naive is {cfg.p_naive} with one meta agent; allowed: 1 (nobody plays itself)"
        )


def game_returns(cfg: AnalyticSettings) -> Callable[[jax.Array, jax.Array], tuple]:
    """(ego, other) → (J of ego, J of other) with the game of `cfg`."""
    return lambda ego, other: returns(
        ego, other, discount=cfg.discount, payoffs=cfg.payoffs, normalised=cfg.normalised
    )


def naive_start(key: jax.Array, cfg: AnalyticSettings, count: int) -> Float[Array, "n 5"]:
    """Logits of fresh naive learners."""
    return cfg.naive_start_mean + cfg.naive_start_std * jax.random.normal(key, (count, 5))


def naive_step(
    ego: Float[Array, "5"], other: Float[Array, "5"], cfg: AnalyticSettings, rate: float
) -> Float[Array, "5"]:
    """φ⁻ + η ∂J⁻(φ, φ⁻)/∂φ⁻."""
    game = game_returns(cfg)
    return other + rate * jax.grad(lambda x: game(ego, x)[1])(other)


def learning_curve(
    ego: Float[Array, "5"], start: Float[Array, "5"], cfg: AnalyticSettings, updates: int
) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
    """Returns of (ego, naive learner) after 0, 1, …, `updates` naive steps."""
    game = game_returns(cfg)

    def step(other, _):
        return naive_step(ego, other, cfg, cfg.naive_rate), game(ego, other)

    _, (own, theirs) = jax.lax.scan(step, start, None, length=updates + 1)
    return own, theirs


def shaping_objective(
    ego: Float[Array, "5"], start: Float[Array, "5"], cfg: AnalyticSettings
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean of J(φ, φ⁻_m) over m = 0..M, and of the naive learner's own return.

    The paper writes the sum; the mean is on the scale of one game, so that `p_naive` weighs like with like.
    """
    own, theirs = learning_curve(ego, start, cfg, cfg.naive_updates)
    return jnp.mean(own), jnp.mean(theirs)


def look_ahead_objective(
    ego: Float[Array, "5"], other: Float[Array, "5"], cfg: AnalyticSettings
) -> Float[Array, ""]:
    """J(φ, φ⁻ + Σ_q Δ_q), differentiated through the imagined updates Δ_q (exact LOLA-DiCE)."""
    other, _ = jax.lax.scan(
        lambda x, _: (naive_step(ego, x, cfg, cfg.naive_rate), None),
        other,
        None,
        length=cfg.look_aheads,
    )
    return game_returns(cfg)(ego, other)[0]


def lola_gradient(
    ego: Float[Array, "5"], other: Float[Array, "5"], cfg: AnalyticSettings
) -> Float[Array, "5"]:
    """∇_1 J¹ + α (∇_2 J¹)ᵀ ∇_1 ∇_2 J², the original first-order form."""
    game = game_returns(cfg)
    plain, response = jax.grad(lambda a, b: game(a, b)[0], argnums=(0, 1))(ego, other)
    # d/dφ of the other's gradient, contracted with what its movement is worth to us.
    shaped = jax.grad(
        lambda a: jax.grad(lambda b: game(a, b)[1])(other) @ jax.lax.stop_gradient(response)
    )(ego)
    return plain + cfg.naive_rate * shaped


def init(cfg: AnalyticSettings, key: jax.Array) -> AnalyticState:
    """Meta agents at `cfg.start`."""
    key_params, key_run = jax.random.split(key)
    high, low = -DEFECTION_LOGIT, DEFECTION_LOGIT
    shape = (cfg.num_meta, 5)
    match cfg.start:
        case "random":
            params = jax.random.normal(key_params, shape)
        case "defection":
            params = jnp.full(shape, low)
        case _:
            params = jnp.broadcast_to(jnp.array([[high, high, low, high, low]]), shape)
    opt_state = jax.vmap(make_optimizer(cfg.optimizer).init)(params)
    return AnalyticState(jnp.int32(0), key_run, params, opt_state)


def make_update(
    cfg: AnalyticSettings,
) -> Callable[[AnalyticState], tuple[AnalyticState, dict[str, jax.Array]]]:
    """One simultaneous gradient step of all meta agents as `update(state) → (state, metrics)`."""
    check(cfg)
    optimizer = make_optimizer(cfg.optimizer)
    game = game_returns(cfg)

    def plain(ego, others):
        """Mean return against the other meta agents [P - 1, 5]."""
        return jnp.mean(jax.vmap(lambda other: game(ego, other)[0])(others))

    # Nobody to learn from: the exact updates of naive learners are nearly all of the cost.
    naive_exists = cfg.p_naive > 0 or cfg.naive_only_steps > 0

    def shaping(ego, others, starts, weight):
        if not naive_exists:
            return plain(ego, others), {}
        against_naive, naive = jax.vmap(lambda start: shaping_objective(ego, start, cfg))(starts)
        metrics = {"naive/ego_reward": jnp.mean(against_naive), "naive/co_reward": jnp.mean(naive)}
        objective = weight * jnp.mean(against_naive)
        if cfg.num_meta > 1:
            objective = objective + (1 - weight) * plain(ego, others)
        return objective, metrics

    def gradient(i, params, key, step):
        ego = params[i]
        others = params[(i + 1 + jnp.arange(cfg.num_meta - 1)) % cfg.num_meta]
        match cfg.rule:
            case "shaping":
                starts = naive_start(key, cfg, cfg.naive_starts)
                warm = step < cfg.naive_only_steps
                weight = jnp.where(warm, 1.0, cfg.p_naive).astype(ego.dtype)
                return jax.grad(shaping, has_aux=True)(ego, others, starts, weight)
            case "lola_dice":
                shaped = jax.grad(look_ahead_objective)(ego, others[0], cfg)
            case "lola":
                shaped = lola_gradient(ego, others[0], cfg)
            case _:
                shaped = jnp.zeros_like(ego)
        weight = 0.0 if cfg.rule == "naive" else cfg.lola_weight
        return weight * shaped + (1 - weight) * jax.grad(plain)(ego, others), {}

    def agent_update(i, params, opt_state, key, step):
        ascent, metrics = gradient(i, params, key, step)
        if cfg.space == "logits":
            updates, opt_state = optimizer.update(-ascent, opt_state, params[i])
            return optax.apply_updates(params[i], updates), opt_state, metrics
        probs = jax.nn.sigmoid(params[i])
        updates, opt_state = optimizer.update(-ascent / (probs * (1 - probs)), opt_state, probs)
        moved = probs + updates  # pyright: ignore[reportOperatorIssue]
        probs = jnp.clip(moved, MARGIN, 1 - MARGIN)
        return jnp.log(probs) - jnp.log1p(-probs), opt_state, metrics

    def update(state: AnalyticState) -> tuple[AnalyticState, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), cfg.num_meta)
        params, opt_state, metrics = jax.vmap(agent_update, in_axes=(0, None, 0, 0, None))(
            jnp.arange(cfg.num_meta), state.params, state.opt_state, keys, state.step
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        if cfg.num_meta > 1:
            metrics["meta/reward"] = mutual_reward(state.params, cfg)
        for name, logit in zip(("start", "CC", "CD", "DC", "DD"), state.params.T, strict=True):
            metrics[f"cooperation/{name}"] = jnp.mean(jax.nn.sigmoid(logit))
        return replace(state, step=state.step + 1, params=params, opt_state=opt_state), metrics

    return update


def mutual_reward(params: Float[Array, "P 5"], cfg: AnalyticSettings) -> Float[Array, ""]:
    """Mean return of the meta agents against each other, ordered pairs without self-play."""
    game = game_returns(cfg)
    table = jax.vmap(lambda a: jax.vmap(lambda b: game(a, b)[0])(params))(params)
    count = params.shape[0]
    return (jnp.sum(table) - jnp.trace(table)) / (count * (count - 1))
