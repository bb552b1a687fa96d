"""The GRU that predicts observations, rewards and actions in one interleaved sequence (arXiv 2602.16301, App.)."""

import jax
import jax.numpy as jnp
from flax import nnx

from agents.learning_aware.policies import log_prob
from agents.learning_aware.predictive import Games, Predictor
from internal_rl.models.networks import Network
from internal_rl.models.nn import dense
from internal_rl.models.nn.gru import GRUHistory


class PredictorNetwork(nnx.Module):
    """One GRU step per symbol o_t, r_t, a_t; each kind has its own embedding, and a head for what follows it.

    Letters: B games, T rounds, O observations, A actions, H hidden.
    """

    def __init__(
        self, num_observations: int, num_actions: int, embed: int, hidden: int, *, rngs: nnx.Rngs
    ):
        self.embed_obs = dense(num_observations, embed, scale=1.0, rngs=rngs)
        self.embed_reward = dense(1, embed, scale=1.0, rngs=rngs)
        self.embed_action = dense(num_actions, embed, scale=1.0, rngs=rngs)
        self.gru = GRUHistory(embed, hidden, rngs)
        self.reward = dense(hidden, 1, scale=1.0, rngs=rngs)
        self.action = dense(hidden, num_actions, scale=1.0, rngs=rngs)
        self.obs = dense(hidden, num_observations, scale=1.0, rngs=rngs)
        self.sizes = (num_observations, num_actions)

    def observe(self, carry: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """o_t [B] → carry, mean of r_t [B]."""
        carry, h = self.gru.step(self.embed_obs(jax.nn.one_hot(obs, self.sizes[0])), carry)
        return carry, self.reward(jax.nn.swish(h))[..., 0]

    def receive(self, carry: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
        """r_t [B] → carry, logits of a_t [B, A]."""
        carry, h = self.gru.step(self.embed_reward(reward[:, None]), carry)
        return carry, self.action(jax.nn.swish(h))

    def act(self, carry: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """a_t [B] → carry, logits of o_{t+1} [B, O]."""
        carry, h = self.gru.step(self.embed_action(jax.nn.one_hot(action, self.sizes[1])), carry)
        return carry, self.obs(jax.nn.swish(h))

    def loss(self, games: Games) -> jax.Array:
        """Cross-entropies of actions and next observations plus squared error of rewards, mean over games and rounds."""
        batch, rounds = games.action.shape
        obs = self.embed_obs(jax.nn.one_hot(games.obs, self.sizes[0]))  # [B, T + 1, E]
        reward = self.embed_reward(games.reward[..., None])
        action = self.embed_action(jax.nn.one_hot(games.action, self.sizes[1]))
        # o_0 r_0 a_0 … o_T r_T and one action that is not there, cut off again.
        action = jnp.concatenate([action, jnp.zeros_like(action[:, :1])], axis=1)
        symbols = jnp.stack([obs, reward, action], axis=2).reshape(batch, 3 * rounds + 3, -1)
        _, h = self.gru(symbols)
        h = jax.nn.swish(h).reshape(batch, rounds + 1, 3, -1)
        reward_error = jnp.square(self.reward(h[:, :, 0])[..., 0] - games.reward)
        action_loss = -log_prob(self.action(h[:, :-1, 1]), games.action)
        obs_loss = -log_prob(self.obs(h[:, :-1, 2]), games.obs[:, 1:])
        return jnp.mean(reward_error) + jnp.mean(action_loss) + jnp.mean(obs_loss)


class RoundNetwork(nnx.Module):
    """One GRU step per round: a third of the cost. What a round itself tells is added to the heads directly.

    h_t = GRU(h_{t−1}, e(a_{t−1}) + e(o_t) + e(r_t)). Players choose at once, so logits of o_{t+1} that add one part from
    a_t and one from h_t can be exact, and so can a reward that adds one part from o_t.
    """

    def __init__(
        self, num_observations: int, num_actions: int, embed: int, hidden: int, *, rngs: nnx.Rngs
    ):
        self.embed_obs = dense(num_observations, embed, scale=1.0, rngs=rngs)
        self.embed_reward = dense(1, embed, scale=1.0, rngs=rngs)
        self.embed_action = dense(num_actions, embed, scale=1.0, rngs=rngs)
        self.gru = GRUHistory(embed, hidden, rngs)
        self.reward = dense(hidden, 1, scale=1.0, rngs=rngs)
        self.action = dense(hidden, num_actions, scale=1.0, rngs=rngs)
        self.obs = dense(hidden, num_observations, scale=1.0, rngs=rngs)
        self.reward_of_obs = dense(num_observations, 1, scale=1.0, rngs=rngs)
        self.obs_of_action = dense(num_actions, num_observations, scale=1.0, rngs=rngs)
        self.sizes = (num_observations, num_actions)

    def observe(self, carry: tuple, obs: jax.Array) -> tuple[tuple, jax.Array]:
        """o_t [B] → carry, mean of r_t [B]."""
        h, pending = carry
        x = jax.nn.one_hot(obs, self.sizes[0])
        mean = self.reward(jax.nn.swish(h)) + self.reward_of_obs(x)
        return (h, pending + self.embed_obs(x)), mean[..., 0]

    def receive(self, carry: tuple, reward: jax.Array) -> tuple[tuple, jax.Array]:
        """r_t [B] → carry, logits of a_t [B, A]."""
        h, pending = carry
        h, _ = self.gru.step(pending + self.embed_reward(reward[:, None]), h)
        return (h, jnp.zeros_like(pending)), self.action(jax.nn.swish(h))

    def act(self, carry: tuple, action: jax.Array) -> tuple[tuple, jax.Array]:
        """a_t [B] → carry, logits of o_{t+1} [B, O]."""
        h, _ = carry
        x = jax.nn.one_hot(action, self.sizes[1])
        return (h, self.embed_action(x)), self.obs(jax.nn.swish(h)) + self.obs_of_action(x)

    def loss(self, games: Games) -> jax.Array:
        """As that of `PredictorNetwork`."""
        obs = jax.nn.one_hot(games.obs, self.sizes[0])  # [B, T + 1, O]
        action = jax.nn.one_hot(games.action, self.sizes[1])  # [B, T, A]
        inputs = self.embed_obs(obs) + self.embed_reward(games.reward[..., None])
        inputs = inputs.at[:, 1:].add(self.embed_action(action))
        _, h = self.gru(inputs)
        h = jax.nn.swish(h)
        before = jnp.concatenate([jnp.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
        reward = (self.reward(before) + self.reward_of_obs(obs))[..., 0]
        action_loss = -log_prob(self.action(h[:, :-1]), games.action)
        after = self.obs(h[:, :-1]) + self.obs_of_action(action)
        obs_loss = -log_prob(after, games.obs[:, 1:])
        reward_loss = jnp.mean(jnp.square(reward - games.reward))
        return reward_loss + jnp.mean(action_loss) + jnp.mean(obs_loss)


def gru_predictor(
    num_observations: int, num_actions: int, embed: int, hidden: int, step: str = "symbol"
) -> Predictor:
    """The network as a value; `step` is what the GRU takes one step for, "symbol" or "round"."""
    kind = {"symbol": PredictorNetwork, "round": RoundNetwork}[step]

    def construct(rngs: nnx.Rngs) -> PredictorNetwork | RoundNetwork:
        return kind(num_observations, num_actions, embed, hidden, rngs=rngs)

    def init_carry(batch: int):
        h = jnp.zeros((batch, hidden))
        return h if step == "symbol" else (h, jnp.zeros((batch, embed)))

    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    network = Network(construct, nnx.split(shape, nnx.Param)[0])
    return Predictor(
        init=network.init,
        init_carry=init_carry,
        observe=lambda params, carry, obs: network.bind(params).observe(carry, obs),
        receive=lambda params, carry, reward: network.bind(params).receive(carry, reward),
        act=lambda params, carry, action: network.bind(params).act(carry, action),
        loss=lambda params, games: network.bind(params).loss(games),
    )
