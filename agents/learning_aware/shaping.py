"""The batched co-player shaping POMDP (COALA, section 3) and its counterpart against a learned co-player.

A meta-episode is B parallel chains of M inner episodes of T steps. A naive co-player updates its parameters after every
inner episode on all B chains, inside the compiled program. The ego's context runs through all M·T steps; that of a naive
co-player starts afresh in every inner episode, a meta co-player's does not. Functions play one meta-episode; `vmap` over
keys and co-players gives K of them, which must stay apart: the co-player's batch is B, never K·B.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from agents.learning_aware.naive import InnerEpisode, NaiveLearner
from agents.learning_aware.policies import Params, Policy, sample
from envs.social.game import SocialGame


@struct.dataclass
class MetaEpisode:
    """One meta-episode from the ego's side; any leading axes (K, agents, seeds) in front.

    Attributes:
        obs, action, reward: the ego's; B chains of L = M·T steps.
        co_reward: the co-player's.
        info: what the game reports, per player where it does.
    """

    obs: Shaped[Array, "..."]
    action: Int[Array, "*k B L"]
    reward: Float[Array, "*k B L"]
    co_reward: Float[Array, "*k B L"]
    info: Any


def check_context(policy: Policy, inner_length: int, inner_episodes: int) -> None:
    """Raise ValueError unless a whole meta-episode fits the policy's context."""
    length = inner_length * inner_episodes
    if policy.context and length > policy.context:
        raise ValueError(
            f"T * M is {inner_length} * {inner_episodes} = {length}; allowed: at most the policy's context, "
            f"{policy.context}"
        )


def against_naive(
    key: PRNGKeyArray,
    game: SocialGame,
    ego: Policy,
    ego_params: Params,
    learner: NaiveLearner,
    co_params: Params,
    *,
    inner_episodes: int,
    batch: int,
) -> tuple[MetaEpisode, Params]:
    """One meta-episode against a naive learner that starts at `co_params`.

    Returns:
        The meta-episode, and the co-player's parameters after its last update.
    """
    check_context(ego, game.episode_length, inner_episodes)

    def inner(carry, key_inner):
        ego_carry, learner_state = carry
        co_carry = learner.policy.init_carry(batch)
        players = (
            partial(ego.step, ego_params),
            partial(learner.policy.step, learner_state.params),
        )
        (ego_carry, _), record = play_inner_episode(
            key_inner, game, players, (ego_carry, co_carry), batch
        )
        obs, action, reward, info = record
        own = InnerEpisode(
            obs=jnp.swapaxes(obs[:, :, 1], 0, 1), action=action[1].T, reward=reward[:, :, 1].T
        )
        return (ego_carry, learner.update(learner_state, own)), (
            obs[:, :, 0],
            action[0],
            reward,
            info,
        )

    start = (ego.init_carry(batch), learner.init(co_params))
    keys = jax.random.split(key, inner_episodes)
    (_, learner_state), (obs, action, reward, info) = jax.lax.scan(inner, start, keys)
    return _meta_episode(obs, action, reward, info), learner_state.params


def against_meta(
    key: PRNGKeyArray,
    game: SocialGame,
    ego: Policy,
    ego_params: Params,
    other: Policy,
    other_params: Params,
    *,
    inner_episodes: int,
    batch: int,
) -> MetaEpisode:
    """One meta-episode against another meta agent: parameters stand still, it adapts only in context."""
    check_context(ego, game.episode_length, inner_episodes)
    check_context(other, game.episode_length, inner_episodes)
    players = (partial(ego.step, ego_params), partial(other.step, other_params))

    def inner(carries, key_inner):
        carries, (obs, action, reward, info) = play_inner_episode(
            key_inner, game, players, carries, batch
        )
        return carries, (obs[:, :, 0], action[0], reward, info)

    start = (ego.init_carry(batch), other.init_carry(batch))
    keys = jax.random.split(key, inner_episodes)
    _, (obs, action, reward, info) = jax.lax.scan(inner, start, keys)
    return _meta_episode(obs, action, reward, info)


def play_inner_episode(
    key: PRNGKeyArray,
    game: SocialGame,
    players: tuple[Callable, ...],
    carries: tuple[Any, ...],
    batch: int,
):
    """One inner episode of B chains: new carries, and (obs [T, B, N, ...], N actions [T, B], reward [T, B, N], info)."""
    steps, n = game.episode_length, game.num_players
    key_reset, key_act, key_env = jax.random.split(key, 3)
    # All random numbers of the episode at once: one call of the generator instead of one per step.
    uniform = jax.random.uniform(key_act, (steps, n, batch))
    if game.stochastic:
        state, obs = jax.vmap(game.reset)(jax.random.split(key_reset, batch))
        env_keys = jax.random.split(key_env, (steps, batch))
    else:
        state, obs = jax.vmap(lambda _: game.reset(key_reset))(jnp.arange(batch))
        env_keys = None

    def step(carry, inputs):
        state, obs, carries = carry
        uniform_t, keys_t = inputs
        actions, after = [], []
        for i, (player, player_carry) in enumerate(zip(players, carries, strict=True)):
            player_carry, logits, _ = player(obs[:, i], player_carry)
            actions.append(sample(uniform_t[i].astype(logits.dtype), logits))
            after.append(player_carry)
        joint = jnp.stack(actions, axis=1)  # [B, N]
        if keys_t is None:
            state, result = jax.vmap(lambda s, a: game.step(key_env, s, a))(state, joint)
        else:
            state, result = jax.vmap(game.step)(keys_t, state, joint)
        record = (obs, tuple(actions), result.reward, result.info)
        return (state, result.obs, tuple(after)), record

    (_, _, carries), record = jax.lax.scan(step, (state, obs, carries), (uniform, env_keys))
    return carries, record


def _meta_episode(obs, action, reward, info) -> MetaEpisode:
    """From [M, T, B, ...] to [B, L, ...]."""

    def chains(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 0, 1)

    reward = chains(reward)
    return MetaEpisode(
        obs=chains(obs),
        action=chains(action),
        reward=reward[..., 0],
        co_reward=reward[..., 1],
        info=jax.tree.map(chains, info),
    )
