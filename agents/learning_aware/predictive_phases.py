"""Phases of predictive agents: a fresh model is fitted to all games so far, plays games, and they are appended.

Two agents learn side by side (arXiv 2602.16301), each from its own memory. Whom they meet (random tables, each other, or
agents that were trained before and learn no more) is the difference between the paper's experiments. Letters: P agents,
G games of a phase, N games a memory has room for, T rounds.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from agents.learning_aware.optim import standard_promotion
from agents.learning_aware.policies import Params
from agents.learning_aware.predictive import (
    Games,
    Player,
    PredictiveSettings,
    Predictor,
    check,
    learning_player,
    needs_parent,
    play,
    start_symbol,
    tabular_player,
)
from envs.social.matrix import IteratedMatrixGame

AGENTS = 2


@struct.dataclass
class PredictiveState:
    """Both agents' models and memories; `step` counts phases, `filled` games in each memory."""

    step: jax.Array
    key: jax.Array
    params: Params  # leaves [P, ...]
    memory: Games  # [P, N, ...]
    filled: jax.Array
    opponent: Params = None  # of the frozen agents, leaves [P, ...]; None where there are none


def init(
    cfg: PredictiveSettings,
    game: IteratedMatrixGame,
    predictor: Predictor,
    key: jax.Array,
    parent: PredictiveState | None = None,
) -> PredictiveState:
    """Fresh models, and memories that hold games between random tables or, as `cfg.start` says, the parent's.

    Args:
        parent: last state of the run that this one builds on; agent by agent its models are the frozen opponents, or
            its games are gone on from.

    Raises:
        ValueError: `cfg` asks for a parent's agents or games, and there is none.
    """
    if parent is not None:
        # With the parent's seed the same tables would be drawn again, and the same first models.
        key = jax.random.fold_in(key, jax.random.bits(parent.key))
    elif needs_parent(cfg):
        raise ValueError(
            f"parent is missing with opponent '{cfg.opponent}' and start '{cfg.start}'; allowed: a trained state"
        )
    key_params, key_games, key_run = jax.random.split(key, 3)
    params = jax.vmap(predictor.init)(jax.random.split(key_params, AGENTS))
    if parent is not None and cfg.start == "parent":
        first, filled = parent.memory, parent.filled
    else:
        keys, n = jax.random.split(key_games, 3), cfg.pretrain_games
        tables = (tabular_player(keys[0], game, n), tabular_player(keys[1], game, n))
        first = _started(play(keys[2], game, tables, n), start_symbol(cfg, game, True))
        filled = jnp.int32(n)
    room = cfg.phases * cfg.games
    memory = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room), (0, 0))), first)
    opponent = parent.params if parent is not None and cfg.opponent == "frozen" else None
    return PredictiveState(jnp.int32(0), key_run, params, memory, filled, opponent)


def fit(
    key: PRNGKeyArray,
    predictor: Predictor,
    memory: Games,
    filled: jax.Array,
    cfg: PredictiveSettings,
) -> tuple[Params, Float[Array, ""]]:
    """A fresh model after `epochs` over the first `filled` games [N, ...], and its last minibatch's loss."""
    key_init, key_data = jax.random.split(key)
    optimizer = standard_promotion(
        optax.chain(
            optax.clip_by_global_norm(cfg.grad_clip),
            optax.adamw(cfg.learning_rate, b2=cfg.b2, weight_decay=cfg.weight_decay),
        )
    )
    params = predictor.init(key_init)
    # Ceiling, so that a small memory is not skipped.
    steps = -(-cfg.epochs * filled // cfg.batch)

    def step(i, carry):
        params, opt_state, _ = carry
        chosen = jax.random.randint(jax.random.fold_in(key_data, i), (cfg.batch,), 0, filled)
        games = jax.tree.map(lambda x: x[chosen], memory)
        loss, gradient = jax.value_and_grad(predictor.loss)(params, games)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        # AdamW's updates, decay included, are proportional to the rate.
        share = 1 - (1 - cfg.final_rate) * i.astype(jnp.float32) / steps.astype(jnp.float32)
        updates = jax.tree.map(lambda x: share * x, updates)
        return optax.apply_updates(params, updates), opt_state, loss

    start = (params, optimizer.init(params), jnp.zeros(()))
    params, _, loss = jax.lax.fori_loop(0, steps, step, start)
    return params, loss


def make_update(
    cfg: PredictiveSettings, game: IteratedMatrixGame, predictor: Predictor
) -> Callable[[PredictiveState], tuple[PredictiveState, dict[str, jax.Array]]]:
    """One phase of both agents as `update(state) → (state, metrics)`.

    Metrics are rewards and cooperation per round: `meta` of the agents against each other, `tabular/ego` and `tabular/co`
    of the agents against tables and of the tables, `frozen/ego` and `frozen/co` of the agents against frozen ones and of
    these.

    Raises:
        ValueError: naming the first wrong field of `cfg`, its value and what is allowed.
    """
    check(cfg, game)
    tabular = round(cfg.tabular_share * cfg.games)
    others = cfg.games - tabular

    def learner(params: Params, g: int, start: int = 0) -> Player:
        return learning_player(predictor, params, game, cfg, g, start)

    def each_other(key: jax.Array, params: Params) -> Games:
        """Leaves [P, G, ...]."""
        first, second = (jax.tree.map(lambda x, i=i: x[i], params) for i in range(AGENTS))
        return play(key, game, (learner(first, others), learner(second, others)), others)

    def against_frozen(key: jax.Array, params: Params, opponent: Params) -> tuple[Games, Games]:
        def one(inputs: tuple) -> Games:
            key, ego, co = inputs
            return play(key, game, (learner(ego, others), learner(co, others)), others)

        return _sides(jax.lax.map(one, (_keys(key), params, opponent)))

    def against_tables(key: jax.Array, tables: jax.Array, params: Params) -> tuple[Games, Games]:
        start = start_symbol(cfg, game, True)

        def one(inputs: tuple) -> Games:
            key, table, ego = inputs
            players = learner(ego, tabular, start), tabular_player(table, game, tabular)
            return play(key, game, players, tabular)

        ego, co = _sides(jax.lax.map(one, (_keys(key), _keys(tables), params)))
        return _started(ego, start), co

    def update(state: PredictiveState) -> tuple[PredictiveState, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        fits = jax.random.split(keys[0], AGENTS)
        params, losses = jax.lax.map(
            lambda x: fit(x[0], predictor, x[1], state.filled, cfg), (fits, state.memory)
        )
        metrics = {"loss": jnp.mean(losses)}
        parts: list[Games] = []
        if others and cfg.opponent == "learner":
            games = each_other(keys[1], params)
            parts.append(games)
            metrics |= _game_metrics("meta", games)
        if others and cfg.opponent == "frozen":
            ego, co = against_frozen(keys[4], params, state.opponent)
            parts.append(ego)
            metrics |= _game_metrics("frozen/ego", ego) | _game_metrics("frozen/co", co)
        if tabular:
            ego, co = against_tables(keys[2], keys[3], params)
            parts.append(ego)
            metrics |= _game_metrics("tabular/ego", ego) | _game_metrics("tabular/co", co)
        new = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
        # Beyond `phases`, the newest games overwrite the last ones.
        memory = jax.tree.map(
            lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, state.filled, axis=1),
            state.memory,
            new,
        )
        filled = jnp.minimum(state.filled + cfg.games, memory.action.shape[1])
        state = replace(state, step=state.step + 1, params=params, memory=memory, filled=filled)
        return state, metrics

    return update


def _keys(key: jax.Array) -> jax.Array:
    """One for each agent [P]."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(AGENTS))


def _sides(games: Games) -> tuple[Games, Games]:
    """[P, 2, G, ...] → the agents' side and their co-players', [P, G, ...] each."""
    return jax.tree.map(lambda x: x[:, 0], games), jax.tree.map(lambda x: x[:, 1], games)


def _started(games: Games, symbol: int) -> Games:
    """Games as their learning player saw them: `symbol` before the first round."""
    return replace(games, obs=games.obs.at[..., 0].set(symbol)) if symbol else games


def _game_metrics(name: str, games: Games) -> dict[str, jax.Array]:
    """Per-round reward and cooperation, over the game and in its last fifth."""
    late = max(1, games.action.shape[-1] // 5)
    return {
        f"{name}_reward": jnp.mean(games.reward[..., 1:]),
        f"{name}_cooperation": jnp.mean((games.action == 0).astype(jnp.float32)),
        f"{name}_late_reward": jnp.mean(games.reward[..., -late:]),
    }
