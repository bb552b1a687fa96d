"""Predictive policy improvement: a sequence model of the game is world model and self-model at once (arXiv 2602.16301).

Per round a player sees o_t, is paid r_t for the last round, and chooses a_t; the model predicts each from everything
before it. It acts by π(a) ∝ p(a) exp(β Q̂(a)), with Q̂ from rollouts *inside the model*, which also plays the agent's own
later actions. This module plays games; `predictive_phases` learns from them. Co-players are other such agents and random
memory-1 tables; nobody is told who is who, and nothing learns by gradient inside a game: adapting in context is what
makes agents shapeable. Letters: B, G games, T rounds, R rollouts, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from agents.learning_aware.policies import Carry, Params, sample
from envs.social.matrix import IteratedMatrixGame


@dataclass(frozen=True)
class Predictor:
    """A model of o_0, r_0, a_0, o_1, r_1, a_1, …, as functions on a batch of games [B].

    Attributes:
        init: key → parameters.
        init_carry: B → state before o_0.
        observe: parameters, carry, o_t → carry, mean of r_t [B].
        receive: parameters, carry, r_t → carry, logits of a_t [B, A].
        act: parameters, carry, a_t → carry, logits of o_{t+1} [B, O].
        loss: parameters, Games of one player → mean loss per round.
    """

    init: Callable[[jax.Array], Params]
    init_carry: Callable[[int], Carry]
    observe: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    receive: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    act: Callable[[Params, Carry, jax.Array], tuple[Carry, jax.Array]]
    loss: Callable[[Params, "Games"], jax.Array]


@struct.dataclass
class Games:
    """Whole games from one player's side; leading axes may precede.

    Attributes:
        obs, reward: [..., T + 1], the last ones after the last action; r_0 = 0.
        action: [..., T].
    """

    obs: Int[Array, "*g t"]
    reward: Float[Array, "*g t"]
    action: Int[Array, "*g s"]


@dataclass(frozen=True)
class PredictiveSettings:
    """Defaults are the paper's where it gives one."""

    beta: float = 100.0
    """β of exp(β Q̂). The paper's 0.01 can only be its inverse: as β it would tilt a policy by at most e^0.3 a phase."""
    rollouts: int = 32
    """R per action. Not given in the paper."""
    depth: int = 15
    """Rounds a rollout looks ahead."""
    past_end: bool = False
    """Near the end, rollouts go on in rounds that the game does not have and the model has never seen, so nobody has a
    reason to defect in the last rounds. Otherwise they end with the game. Not given in the paper."""
    discount: float = 1.0
    """γ inside rollouts. Not given in the paper."""
    tabular_share: float = 0.5
    """Share of games against random memory-1 tables; the rest is against `opponent`. 1 and 0 are the paper's first step
    and its ablation without tables."""
    opponent: Literal["learner", "frozen"] = "learner"
    """Who plays the games that are not against tables. learner: the other learning agent. frozen: the parent run's
    agents, one for each of ours, which act by their improved policies and learn no more; the paper's second step."""
    start: Literal["tables", "parent"] = "tables"
    """What the memories hold at first. tables: `pretrain_games`. parent: all games of the parent run's agents, which so
    go on learning; with opponent learner and no tables the paper's third step."""
    identity: bool = False
    """Players see at the start of a game whether they face a table; the paper's ablation, in which cooperation fails."""
    pretrain_games: int = 200_000
    """Games between random tables that the first model is fitted to."""
    games: int = 20_000
    """G: games of each agent in a phase."""
    phases: int = 30
    """How many phases the memory has room for."""
    epochs: int = 10
    """Passes over all data in a phase; minibatches are drawn with replacement."""
    batch: int = 256
    """Games in a minibatch."""
    learning_rate: float = 1e-4
    final_rate: float = 1.0
    """Share of the learning rate that is left at the end of a phase's fit, which it falls to linearly. 1: constant."""
    weight_decay: float = 1e-2
    b2: float = 0.98
    """Second-moment decay of AdamW."""
    grad_clip: float = 1.0
    """Global norm."""


def check(cfg: PredictiveSettings, game: IteratedMatrixGame) -> None:
    """Raise ValueError naming the first wrong field, its value and what is allowed."""
    if game.num_players != 2:
        raise ValueError(f"the game has {game.num_players} players; allowed: 2")
    for name in ("rollouts", "depth", "pretrain_games", "games", "phases", "epochs", "batch"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: at least 1")
    for name in ("tabular_share", "discount", "final_rate"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise ValueError(f"{name} is {getattr(cfg, name)}; allowed: in [0, 1]")
    if cfg.beta < 0:
        raise ValueError(f"beta is {cfg.beta}; allowed: at least 0")
    if not cfg.learning_rate > 0:
        raise ValueError(f"learning_rate is {cfg.learning_rate}; allowed: above 0")
    if cfg.opponent == "frozen" and round(cfg.tabular_share * cfg.games) == cfg.games:
        raise ValueError(
            f"tabular_share is {cfg.tabular_share} with opponent 'frozen', so none of {cfg.games} games is against it; "
            "allowed: less"
        )


def needs_parent(cfg: PredictiveSettings) -> bool:
    """Whether agents or their games come from another run."""
    return cfg.opponent == "frozen" or cfg.start == "parent"


def rollout_values(
    key: PRNGKeyArray,
    predictor: Predictor,
    params: Params,
    carry: Carry,
    num_actions: int,
    cfg: PredictiveSettings,
    rounds_left: Int[Array, ""] | int,
) -> Float[Array, "B A"]:
    """Q̂(a): mean return of R rollouts inside the model after each own action a.

    Args:
        carry: state of a batch of B games after r_t.
        rounds_left: rounds that are still to be paid, this one included; rollouts go no further.
    """

    def rollout(key: PRNGKeyArray, action: Int[Array, ""]) -> Float[Array, " B"]:
        batch = _batch_of(carry)
        start, logits = predictor.act(params, carry, jnp.full((batch,), action))
        uniform = jax.random.uniform(key, (cfg.depth, 2, batch))

        def step(inner, inputs):
            state, obs_logits, total = inner
            k, draws = inputs
            state, reward = predictor.observe(params, state, sample(draws[0], obs_logits))
            weight = jnp.where(k < rounds_left, cfg.discount ** k.astype(jnp.float32), 0.0)
            state, own = predictor.receive(params, state, reward)
            state, obs_logits = predictor.act(params, state, sample(draws[1], own))
            return (state, obs_logits, total + weight * reward), None

        ks = jnp.arange(cfg.depth)
        (_, _, total), _ = jax.lax.scan(step, (start, logits, jnp.zeros(batch)), (ks, uniform))
        return total

    # Actions share their random numbers: at β = 100 only the sign of Q̂(C) − Q̂(D) counts, whose noise this cuts.
    keys = jax.random.split(key, cfg.rollouts)
    each = jax.vmap(jax.vmap(rollout, in_axes=(0, None)), in_axes=(None, 0))(
        keys, jnp.arange(num_actions)
    )
    return jnp.mean(each, axis=1).T


def improved(
    logits: Float[Array, "*b A"], values: Float[Array, "*b A"], beta: float | Array
) -> Float[Array, "*b A"]:
    """Logits of π(a) ∝ p(a) exp(β Q(a))."""
    return jax.nn.log_softmax(logits) + beta * values


def tabular_logits(key: PRNGKeyArray, games: int, num_observations: int) -> Float[Array, "G O"]:
    """Random memory-1 opponents: P(C | o) ~ U(0, 1), as logits."""
    p = jax.random.uniform(key, (games, num_observations), minval=1e-6, maxval=1 - 1e-6)
    return jnp.log(p) - jnp.log1p(-p)


Player = tuple[Callable[[PRNGKeyArray, Any, jax.Array, jax.Array, jax.Array], tuple], Any]
"""(act: key, state, obs, reward, round → state, actions [G]), first state."""


def num_symbols(cfg: PredictiveSettings, game: IteratedMatrixGame) -> int:
    """Observations that the model must tell apart: the game's, and with `identity` a second start symbol for tables."""
    return game.num_observations + int(cfg.identity)


def start_symbol(cfg: PredictiveSettings, game: IteratedMatrixGame, tabular: bool) -> int:
    """What a learning player sees before the first round, against a table or not."""
    return game.num_observations if cfg.identity and tabular else 0


def learning_player(
    predictor: Predictor,
    params: Params,
    game: IteratedMatrixGame,
    cfg: PredictiveSettings,
    g: int,
    start: int = 0,
) -> Player:
    """Plays the improved policy; `start` is what it sees before the first round."""

    def act(key, carry, obs, reward, time):
        key_roll, key_act = jax.random.split(key)
        obs = jnp.where(time == 0, start, obs)
        carry, _ = predictor.observe(params, carry, obs)
        carry, logits = predictor.receive(params, carry, reward)
        left = cfg.depth if cfg.past_end else game.episode_length - time
        values = rollout_values(key_roll, predictor, params, carry, game.num_actions, cfg, left)
        action = sample(jax.random.uniform(key_act, (g,)), improved(logits, values, cfg.beta))
        carry, _ = predictor.act(params, carry, action)
        return carry, action

    return act, predictor.init_carry(g)


def tabular_player(key: PRNGKeyArray, game: IteratedMatrixGame, g: int) -> Player:
    """One random memory-1 table per game."""
    table = tabular_logits(key, g, game.num_observations)

    def act(key, carry, obs, reward, time):
        del reward, time
        logit = jnp.take_along_axis(table, obs[:, None], axis=1)[:, 0]
        return carry, (jax.random.uniform(key, (g,)) >= jax.nn.sigmoid(logit)).astype(jnp.int32)

    return act, ()


def play(
    key: PRNGKeyArray, game: IteratedMatrixGame, players: tuple[Player, Player], g: int
) -> Games:
    """g games from both sides, leaves [2, g, ...]."""
    obs = jnp.zeros((2, g), jnp.int32)
    reward = jnp.zeros((2, g))

    def round_(carry, inputs):
        states, obs, reward = carry
        key, time = inputs
        keys = jax.random.split(key, 3)
        after, actions = [], []
        for i, ((act, _), state) in enumerate(zip(players, states, strict=True)):
            state, action = act(keys[i], state, obs[i], reward[i], time)
            after.append(state)
            actions.append(action)
        joint = jnp.stack(actions, axis=1)  # [G, 2]
        _, result = jax.vmap(lambda a: game.step(keys[2], (), a))(joint)
        return (tuple(after), result.obs.T, result.reward.T), (obs, reward, joint.T)

    times = jnp.arange(game.episode_length)
    keys = jax.random.split(key, game.episode_length)
    start = (tuple(state for _, state in players), obs, reward)
    (_, last_obs, last_reward), record = jax.lax.scan(round_, start, (keys, times))
    obs, reward, action = (jnp.moveaxis(x, 0, 2) for x in record)  # [2, G, T]
    return Games(
        obs=jnp.concatenate([obs, last_obs[..., None]], axis=2),
        reward=jnp.concatenate([reward, last_reward[..., None]], axis=2),
        action=action,
    )


def _batch_of(carry: Carry) -> int:
    return jax.tree.leaves(carry)[0].shape[0]
