"""The training iteration of a pool of meta agents (COALA, Algorithm 1 and App. E).

Every meta agent plays K meta-episodes: a fixed number against naive learners, the rest against the other meta agents;
then all of them improve at once. Letters: P meta agents, K meta-episodes, S naive starts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from agents.learning_aware.checks import at_least
from agents.learning_aware.estimators import ESTIMATORS, Estimator, by_name, score_weights
from agents.learning_aware.lola import LolaSettings, check_lola, lola_dice_gradient
from agents.learning_aware.naive import NaiveLearner
from agents.learning_aware.objectives import (
    Chains,
    ObjectiveSettings,
    centre,
    check_centring,
    check_objective,
    concatenate,
    improve,
    prepare,
)
from agents.learning_aware.optim import make_optimizer
from agents.learning_aware.policies import Params, Policy
from agents.learning_aware.shaping import MetaEpisode, against_meta, against_naive, check_context
from agents.references import blaming, is_reference
from envs.social.game import SocialGame

LOLA = "lola_dice"
"""The one meta learner that is no weighting of scores."""


@dataclass(frozen=True)
class PoolSettings:
    """Who plays whom, and how long."""

    num_meta: int = 1
    """P: meta agents, each with its own parameters."""
    p_naive: float = 1.0
    """Share of naive co-players. The split of K is the same in every iteration, so that shapes are static."""
    p_meta: float = 0.0
    """Share of meta co-players; p_naive + p_meta = 1."""
    meta_episodes: int = 8
    """K: meta-episodes of each meta agent in one iteration (the paper's meta_batch_size)."""
    naive_episodes: int = 0
    """How many of them are against naive co-players; 0 = round(p_naive · K), the paper's reading in expectation. With
    another number the signals are reweighted, so the expected gradient stays the p_naive, p_meta mixture."""
    batch: int = 16
    """B: chains that share a co-player; its minibatch."""
    slices: int = 1
    """Meta-episodes are played in this many slices, one after another: less memory, same numbers. It divides their number
    against either kind of co-player. objective.slices does the same for gradients."""
    inner_episodes: int = 20
    """M: inner episodes in a meta-episode; a naive co-player learns after each."""
    naive_starts: int = 1
    """S: fixed parameters at which naive co-players start."""
    dynamic_naive: bool = False
    """Naive co-players start as copies of the current meta agents instead; needs the same policy on both sides."""
    fresh_naive: bool = False
    """Naive co-players start at newly drawn parameters in every meta-episode instead."""
    estimator: str = "coala"
    """coala, full, batch_unaware, m_fos or myopic: weights on scores against naive co-players. Against meta co-players it
    is always batch_unaware, which is right there. Several names joined by commas, one per meta agent, make them rivals
    (the paper's App. H.3). lola_dice: look-ahead gradients instead, see lola. Your own as file.py:NAME or module:NAME, an
    Estimator, which estimators.weighted_by makes of a function."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    lola: LolaSettings = field(default_factory=LolaSettings)
    """lola_dice only: imagined inner episodes from the parameters with which a co-player starts its meta-episode."""


@struct.dataclass
class PoolState:
    """Training state of one seed."""

    step: jax.Array
    key: jax.Array
    params: Params  # leaves [P, ...]
    opt_state: Any  # leaves [P, ...]
    naive: Params  # leaves [S, ...]


def check_pool(cfg: PoolSettings, game: SocialGame) -> tuple[int, int]:
    """(naive, meta) meta-episodes per iteration.

    Raises:
        ValueError: naming the first wrong field, its value and what is allowed.
    """
    for name in ("num_meta", "meta_episodes", "batch", "inner_episodes", "naive_starts"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: at least 1")
    at_least(cfg, 0, "naive_episodes")
    for name in ("p_naive", "p_meta"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: in [0, 1]")
    if abs(cfg.p_naive + cfg.p_meta - 1) > 1e-9:
        raise ValueError(
            f"p_naive + p_meta is {cfg.p_naive} + {cfg.p_meta} = {cfg.p_naive + cfg.p_meta:g}; allowed: 1"
        )
    if cfg.fresh_naive and cfg.dynamic_naive:
        raise ValueError(
            "fresh_naive is True with dynamic_naive True; allowed: at most one of them, each says where naive ones start"
        )
    if cfg.p_meta > 0 and cfg.num_meta < 2:
        raise ValueError(
            f"num_meta is {cfg.num_meta} with p_meta {cfg.p_meta}; allowed: at least 2, nobody plays itself"
        )
    if game.num_players != 2:
        raise ValueError(f"the game has {game.num_players} players; allowed: 2 (ego and co-player)")
    objective = cfg.objective
    check_objective(objective, "objective.")
    if cfg.estimator == LOLA:
        check_lola(cfg.lola)
        if objective.algorithm != "reinforce":
            raise ValueError(
                f"objective.algorithm is '{objective.algorithm}' with estimator {LOLA}; allowed: reinforce (one step)"
            )
    elif not all(name in ESTIMATORS or is_reference(name) for name in _names(cfg)):
        allowed = ", ".join((*ESTIMATORS, LOLA))
        raise ValueError(f"estimator is '{cfg.estimator}'; allowed: {allowed}, or file.py:NAME")
    elif len(_names(cfg)) not in (1, cfg.num_meta):
        raise ValueError(
            f"estimator is '{cfg.estimator}' with num_meta {cfg.num_meta}; allowed: one name, or {cfg.num_meta}"
        )
    if objective.algorithm not in ("reinforce", "a2c", "ppo"):
        raise ValueError(
            f"objective.algorithm is '{objective.algorithm}'; allowed: reinforce, a2c, ppo"
        )
    estimators = [] if cfg.estimator == LOLA else [by_name(name) for name in _names(cfg)]
    if objective.algorithm != "reinforce" and any(e.needs_reinforce for e in estimators):
        raise ValueError(
            f"estimator is '{cfg.estimator}' with {objective.algorithm}; allowed with a critic: "
            "coala, batch_unaware, m_fos (every one with objective.algorithm reinforce)"
        )
    rewards = jax.ShapeDtypeStruct(
        (cfg.batch, cfg.inner_episodes * game.episode_length), jnp.float32
    )
    for name, estimator in zip(_names(cfg), estimators, strict=False):
        if estimator.weights is not None:
            _check_weights(name, estimator, game.episode_length, rewards)
    chains = cfg.meta_episodes * cfg.batch
    if objective.algorithm == "ppo" and (
        objective.minibatches < 1 or objective.epochs < 1 or chains % objective.minibatches
    ):
        raise ValueError(
            f"objective.minibatches is {objective.minibatches}; allowed: divisors of K * B = {chains}"
        )
    naive = cfg.naive_episodes or round(cfg.p_naive * cfg.meta_episodes)
    meta = cfg.meta_episodes - naive
    if meta < 0 or (naive == 0) != (cfg.p_naive == 0) or (meta == 0) != (cfg.p_meta == 0):
        raise ValueError(
            f"naive_episodes is {naive} of meta_episodes = {cfg.meta_episodes} with p_naive {cfg.p_naive}; allowed: "
            "at least one meta-episode of each kind whose share is above 0, none of the others"
        )
    _check_slices(cfg, naive, meta)
    if cfg.estimator != LOLA:  # its gradients are not centred
        shared = any(estimator.average_future for estimator in estimators)
        check_centring(objective, naive, meta, shared)
    return naive, meta


def _check_weights(
    name: str, estimator: Estimator, inner_length: int, rewards: jax.ShapeDtypeStruct
) -> None:
    try:
        with blaming(name):
            jax.eval_shape(lambda r: score_weights(estimator, r, inner_length), rewards)
    except ValueError as error:
        raise ValueError(f"estimator '{name}', T = {inner_length}: {error}") from error


def _check_slices(cfg: PoolSettings, naive: int, meta: int) -> None:
    common = math.gcd(naive, meta)  # gcd(n, 0) = n
    if cfg.slices < 1 or common % cfg.slices:
        raise ValueError(
            f"slices is {cfg.slices}; allowed: divisors of {common}, which divides the meta-episodes against naive "
            f"({naive}) and meta ({meta}) co-players"
        )
    objective = cfg.objective
    minibatches = objective.minibatches if objective.algorithm == "ppo" else 1
    chains = cfg.meta_episodes * cfg.batch // minibatches
    if objective.slices < 1 or chains % objective.slices:
        raise ValueError(
            f"objective.slices is {objective.slices}; allowed: divisors of {chains}, the chains of a minibatch"
        )


def init(cfg: PoolSettings, policy: Policy, learner: NaiveLearner, key: jax.Array) -> PoolState:
    """Fresh meta agents, each with its own parameters, and the fixed naive starts."""
    key_meta, key_naive, key_run = jax.random.split(key, 3)
    params = jax.vmap(policy.init)(jax.random.split(key_meta, cfg.num_meta))
    opt_state = jax.vmap(make_optimizer(cfg.objective.optimizer).init)(params)
    naive = jax.vmap(learner.policy.init)(jax.random.split(key_naive, cfg.naive_starts))
    return PoolState(jnp.int32(0), key_run, params, opt_state, naive)


def make_update(
    cfg: PoolSettings, game: SocialGame, policy: Policy, learner: NaiveLearner
) -> Callable[[PoolState], tuple[PoolState, dict[str, jax.Array]]]:
    """One iteration as `update(state) → (state, metrics)`, all meta agents at once."""
    num_naive, num_meta = check_pool(cfg, game)
    check_context(policy, game.episode_length, cfg.inner_episodes)
    optimizer = make_optimizer(cfg.objective.optimizer)
    lola = cfg.estimator == LOLA
    # LOLA's meta-episodes only report.
    names = ("batch_unaware",) if lola else _names(cfg)
    # 1 where the meta-episodes are split as the shares say.
    weight_naive = cfg.p_naive * cfg.meta_episodes / max(num_naive, 1)
    weight_meta = cfg.p_meta * cfg.meta_episodes / max(num_meta, 1)
    sizes = {"inner_episodes": cfg.inner_episodes, "batch": cfg.batch}

    def look_ahead(key, params, others, co_policy, weight):
        """Weighted mean of LOLA-DiCE gradients against several co-players; linear in the ego's rewards' scale."""
        weight = weight * cfg.objective.reward_scale
        count = jax.tree.leaves(others)[0].shape[0]
        gradients = jax.vmap(
            lambda k, other: lola_dice_gradient(
                k, game, (policy, co_policy), params, other, cfg.lola
            )
        )(jax.random.split(key, count), others)
        return jax.tree.map(lambda g: weight * jnp.mean(g, axis=0), gradients)

    def agent_update(i, key, params, opt_state, state: PoolState):
        key_naive, key_meta, key_steps = jax.random.split(key, 3)
        ready = partial(
            prepare, policy, params, cfg=cfg.objective, inner_length=game.episode_length
        )
        parts: list[Chains] = []
        ascents: list[Params] = []
        metrics: dict[str, jax.Array] = {}
        if num_naive:
            # Not 1, which gives the key of meta-episode 1: split(key, n)[1].
            key_starts = jax.random.fold_in(key_naive, 2**31)
            starts = _naive_starts(key_starts, state, num_naive, cfg, learner)

            def play_naive(keys: jax.Array, starts: Params):
                episodes, _ = jax.vmap(
                    lambda k, start: against_naive(k, game, policy, params, learner, start, **sizes)
                )(keys, starts)
                numbers = episode_metrics("naive", episodes, game.episode_length)
                if lola:
                    return (), numbers
                return _choose(names, i, lambda name: ready(episodes, by_name(name))), numbers

            keys = jax.random.split(key_naive, num_naive)
            chains, numbers = _in_slices(cfg.slices, play_naive, keys, starts)
            metrics |= numbers
            if lola:
                key_lola = jax.random.fold_in(key_steps, 0)
                ascents.append(look_ahead(key_lola, params, starts, learner.policy, cfg.p_naive))
            else:
                parts.append(weigh(centre(chains, cfg.batch, cfg.objective), weight_naive))
        if num_meta:
            key_partner, key_play = jax.random.split(key_meta)
            # Any of the others with the same probability: shift by 1..P-1.
            shift = jax.random.randint(key_partner, (num_meta,), 1, cfg.num_meta)
            partners = jax.tree.map(lambda x: x[(i + shift) % cfg.num_meta], state.params)

            def play_meta(keys: jax.Array, partners: Params):
                episodes = jax.vmap(
                    lambda k, other: against_meta(k, game, policy, params, policy, other, **sizes)
                )(keys, partners)
                numbers = episode_metrics("meta", episodes, game.episode_length)
                return () if lola else ready(episodes, ESTIMATORS["batch_unaware"]), numbers

            keys = jax.random.split(key_play, num_meta)
            chains, numbers = _in_slices(cfg.slices, play_meta, keys, partners)
            metrics |= numbers
            if lola:
                key_lola = jax.random.fold_in(key_steps, 1)
                ascents.append(look_ahead(key_lola, params, partners, policy, cfg.p_meta))
            else:
                parts.append(weigh(centre(chains, cfg.batch, cfg.objective), weight_meta))
        if lola:
            descent = jax.tree.map(lambda *x: -sum(x), *ascents)
            updates, opt_state = optimizer.update(descent, opt_state, params)
            metrics["grad_norm"] = optax.tree.norm(descent)
            return optax.apply_updates(params, updates), opt_state, metrics
        chains = concatenate(*parts)
        params, opt_state, learning = improve(
            key_steps, policy, params, opt_state, optimizer, chains, cfg.objective
        )
        return params, opt_state, metrics | learning

    def update(state: PoolState) -> tuple[PoolState, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), cfg.num_meta)
        params, opt_state, metrics = jax.vmap(agent_update, in_axes=(0, 0, 0, 0, None))(
            jnp.arange(cfg.num_meta), keys, state.params, state.opt_state, state
        )
        state = replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return state, jax.tree.map(jnp.mean, metrics) | _by_rival(names, metrics)

    return update


def _in_slices(
    slices: int, play: Callable[[jax.Array, Params], tuple[Any, dict[str, jax.Array]]], *args: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """`play` of arguments [K, ...], a slice after another: its chains in the same order, its metrics (means) averaged."""
    if slices == 1:
        return play(*args)
    parts = jax.tree.map(lambda x: x.reshape(slices, -1, *x.shape[1:]), args)
    chains, metrics = jax.lax.map(lambda part: play(*part), parts)
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chains)
    return merged, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)


def _names(cfg: PoolSettings) -> tuple[str, ...]:
    """Estimators: one for all meta agents, or one each."""
    return tuple(cfg.estimator.split(","))


def _choose(names: tuple[str, ...], i: jax.Array, make: Callable[[str], Chains]) -> Chains:
    """`make` of agent i's estimator. Agents are vmapped, so each kind is computed for all of them."""
    kinds = sorted(set(names))
    if len(kinds) == 1:
        return make(kinds[0])
    own = jnp.array([kinds.index(name) for name in names])[i]
    return jax.tree.map(lambda *x: jnp.stack(x)[own], *(make(kind) for kind in kinds))


def _by_rival(names: tuple[str, ...], metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """With several estimators, the rewards [P] of those agents that use each."""
    kinds = sorted(set(names))
    if len(kinds) == 1:
        return {}
    shown = ("naive/ego_reward", "meta/ego_reward", "meta/co_reward")
    return {
        f"{name}_{kind}": jnp.mean(metrics[name][np.flatnonzero(np.array(names) == kind)])
        for kind in kinds
        for name in shown
        if name in metrics
    }


def episode_metrics(name: str, episodes: MetaEpisode, inner_length: int) -> dict[str, jax.Array]:
    """Per-step rewards over meta-episodes, and in the first and last inner episode (the last is always exploitative).

    Of what the game reports per player: both players' means, and "gap", how unevenly it is shared within a chain:
    |ego's mean over time − co-player's|, then the mean over chains. In CleanUp-lite cleaned_gap is COALA's Fig. 7.
    """
    first, last = slice(0, inner_length), slice(-inner_length, None)
    return {
        f"{name}/ego_reward": jnp.mean(episodes.reward),
        f"{name}/co_reward": jnp.mean(episodes.co_reward),
        f"{name}/ego_first": jnp.mean(episodes.reward[..., first]),
        f"{name}/ego_last": jnp.mean(episodes.reward[..., last]),
        f"{name}/co_first": jnp.mean(episodes.co_reward[..., first]),
        f"{name}/co_last": jnp.mean(episodes.co_reward[..., last]),
        # Action 0 is the cooperative one in every matrix dilemma, and "right" in CleanUp-lite.
        f"{name}/ego_action0": jnp.mean((episodes.action == 0).astype(jnp.float32)),
    } | {f"{name}/{key}": jnp.mean(value) for key, value in _per_player(episodes.info).items()}


def _per_player(info: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Numbers [..., L, N] of both players under their own names, and their gap; common ones [..., L] as they are."""
    flat = {}
    for name, value in info.items():
        if value.ndim == 4:  # [K, B, L, N]
            flat[f"ego_{name}"], flat[f"co_{name}"] = value[..., 0], value[..., 1]
            # Not of means over chains: who has which role differs between them, and cancels.
            share = jnp.mean(value, axis=2)
            flat[f"{name}_gap"] = jnp.abs(share[..., 0] - share[..., 1])
        else:
            flat[name] = value
    return flat


def weigh(chains: Chains, weight: float) -> Chains:
    """Chains whose signal counts `weight` times."""
    return chains if weight == 1.0 else replace(chains, signal=weight * chains.signal)


def _naive_starts(
    key: jax.Array, state: PoolState, count: int, cfg: PoolSettings, learner: NaiveLearner
) -> Params:
    if cfg.fresh_naive:
        return jax.vmap(learner.policy.init)(jax.random.split(key, count))
    source = state.params if cfg.dynamic_naive else state.naive
    size = jax.tree.leaves(source)[0].shape[0]
    chosen = jax.random.randint(key, (count,), 0, size)
    return jax.tree.map(lambda x: x[chosen], source)
