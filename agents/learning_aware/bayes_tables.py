"""The exact predictor of games among random memory-1 tables: what a perfectly fitted model knows before phase 1.

Both players' five cooperation probabilities have uniform priors, so each prediction is Laplace's rule on counts. As a
`Predictor` it separates what a learned model gets wrong from what rollouts get wrong. Letters: B games, O observations.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from agents.learning_aware.policies import log_prob
from agents.learning_aware.predictive import Games, Predictor
from envs.social.matrix import IteratedMatrixGame

_IMPOSSIBLE = -30.0


@struct.dataclass
class Counts:
    """C and D so far in each observation, and the round that is being played.

    Attributes:
        own, other: by the player's own view, start first.
        obs: of this round; −1 before the first.
        action: own, of this round.
    """

    own: Float[Array, "B O 2"]
    other: Float[Array, "B O 2"]
    obs: Int[Array, " B"]
    action: Int[Array, " B"]


def bayes_tables(game: IteratedMatrixGame) -> Predictor:
    """The predictor for a two-player, two-action game. It has no parameters, and `loss` is its exact log-loss."""
    o = game.num_observations
    payoff = jnp.concatenate([jnp.zeros(1), jnp.asarray(game.table[0], jnp.float32)])

    def init_carry(batch: int) -> Counts:
        zeros = jnp.zeros((batch, o, 2))
        return Counts(zeros, zeros, jnp.full((batch,), -1, jnp.int32), jnp.zeros(batch, jnp.int32))

    def observe(params, carry: Counts, obs):
        del params
        # one_hot of −1 is zero: nothing is counted before the first round.
        own = jax.nn.one_hot(carry.obs, o)[:, :, None] * jax.nn.one_hot(carry.action, 2)[:, None]
        theirs = jax.nn.one_hot((obs - 1) % 2, 2)[:, None]
        other = jax.nn.one_hot(swapped(carry.obs), o)[:, :, None] * theirs
        after = Counts(carry.own + own, carry.other + other, obs, carry.action)
        return after, payoff[obs]

    def receive(params, carry: Counts, reward):
        del params, reward
        return carry, _laplace(carry.own, carry.obs)

    def act(params, carry: Counts, action):
        del params
        theirs = jax.nn.log_softmax(_laplace(carry.other, swapped(carry.obs)))  # [B, 2]
        own = jnp.where(jax.nn.one_hot(action, 2) > 0, 0.0, _IMPOSSIBLE)
        cells = (own[:, :, None] + theirs[:, None, :]).reshape(-1, 4)
        start = jnp.full_like(cells[:, :1], _IMPOSSIBLE)
        after = Counts(carry.own, carry.other, carry.obs, action)
        return after, jnp.concatenate([start, cells], axis=1)

    def loss(params, games: Games):
        def round_(carry, inputs):
            obs, reward, action, after = inputs
            carry, mean = observe(params, carry, obs)
            carry, logits = receive(params, carry, reward)
            nats = -log_prob(logits, action) + jnp.square(mean - reward)
            carry, logits = act(params, carry, action)
            return carry, jnp.mean(nats - log_prob(logits, after))

        rounds = (games.obs[:, :-1], games.reward[:, :-1], games.action, games.obs[:, 1:])
        start = init_carry(games.obs.shape[0])
        _, nats = jax.lax.scan(round_, start, tuple(x.T for x in rounds))
        return jnp.mean(nats)

    return Predictor(lambda key: (), init_carry, observe, receive, act, loss)


def swapped(obs: Int[Array, " B"]) -> Int[Array, " B"]:
    """The same round as the other player names it: CD and DC change places."""
    return jnp.where(obs == 2, 3, jnp.where(obs == 3, 2, obs))


def _laplace(counts: Float[Array, "B O 2"], obs: Int[Array, " B"]) -> Float[Array, "B 2"]:
    """log (n_C + 1), log (n_D + 1) in the observation; logits of the posterior mean."""
    return jnp.log1p(jnp.sum(jax.nn.one_hot(obs, counts.shape[1])[:, :, None] * counts, axis=1))


def best_response_value(
    opponents: Float[Array, "N O"], game: IteratedMatrixGame
) -> Float[Array, " N"]:
    """Reward per round of the exact best response to known tables of P(C), by backward induction over T rounds.

    Args:
        opponents: P(C | observation as the opponent names it).
    """
    names = swapped(jnp.arange(game.num_observations))
    p = opponents[:, names]  # [N, O] by own view
    payoff = jnp.asarray(game.table[0], jnp.float32).reshape(2, 2)
    chance = jnp.stack([p, 1 - p], axis=-1)  # [N, O, 2]

    def back(value: jax.Array, _):
        """value [N, O] of the next round's observation."""
        after = payoff[None] + value[:, 1:].reshape(-1, 2, 2)  # [N, a, b]
        q = jnp.einsum("nob,nab->noa", chance, after)
        return jnp.max(q, axis=-1), None

    value, _ = jax.lax.scan(back, jnp.zeros_like(p), None, length=game.episode_length)
    return value[:, 0] / game.episode_length
