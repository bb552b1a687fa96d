"""Every joint action sequence of a small batched shaping problem, with probabilities, rewards and scores. No sampling.

Built on the library's own game, policies, learners and weights; only the sum over sequences is done here.
"""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from agents.learning_aware.naive import InnerEpisode
from agents.learning_aware.policies import log_prob


@dataclass(frozen=True)
class Problem:
    """Sizes and players of an enumerable shaping problem."""

    game: object
    ego: object
    learner: object
    inner_episodes: int
    batch: int

    @property
    def length(self):
        return self.game.episode_length * self.inner_episodes

    def sequences(self):
        """All actions [n, M, T, B, 2]."""
        shape = (self.inner_episodes, self.game.episode_length, self.batch, 2)
        bits = list(itertools.product(range(2), repeat=int(np.prod(shape))))
        return jnp.array(bits, jnp.int32).reshape(-1, *shape)

    def replay(self, actions, co_params):
        """One sequence: obs [B, L] and actions [B, L] of the ego, rewards [B, L], log-probability of the co-player."""
        learner = self.learner.init(co_params)
        log_p, all_obs, all_rewards = 0.0, [], []
        key = jax.random.key(0)
        for inner in actions:  # [T, B, 2]
            obs, rewards = [jnp.zeros((self.batch, 2), jnp.int32)], []
            for joint in inner:
                _, step = jax.vmap(lambda a: self.game.step(key, (), a))(joint)
                obs.append(step.obs)
                rewards.append(step.reward)
            obs, rewards = jnp.stack(obs[:-1], 1), jnp.stack(rewards, 1)  # [B, T, 2]
            own = InnerEpisode(obs=obs[:, :, 1], action=inner[:, :, 1].T, reward=rewards[:, :, 1])
            logits, _ = self.learner.policy.parallel(learner.params, own.obs, None)
            log_p = log_p + jnp.sum(log_prob(logits, own.action))
            learner = self.learner.update(learner, own)
            all_obs.append(obs[:, :, 0])
            all_rewards.append(rewards[:, :, 0])
        action = jnp.moveaxis(actions[..., 0].reshape(self.length, self.batch), 0, 1)
        return jnp.concatenate(all_obs, 1), action, jnp.concatenate(all_rewards, 1), log_p

    def everything(self, co_params):
        """`replay` of all sequences at once."""
        return jax.jit(jax.vmap(lambda a: self.replay(a, co_params)))(self.sequences())


def ego_log_probs(problem, params, obs, action):
    """log π(a_l^b | h_l^b) [n, B, L]."""
    return jax.vmap(lambda o, a: log_prob(problem.ego.parallel(params, o, None)[0], a))(obs, action)


def exact(problem, params, data):
    """J̄ = E[(1/B) Σ_b Σ_l R_l^b] and its gradient, by differentiating the probabilities."""
    obs, action, reward, co = data

    def objective(params):
        own = ego_log_probs(problem, params, obs, action).sum((1, 2))
        return jnp.sum(jnp.exp(own + co) * reward.sum(2).mean(1))

    return jax.jit(jax.value_and_grad(objective))(params)


def estimator_mean(problem, params, data, weights):
    """E[Σ_b Σ_l W_l^b S_l^b] for weights [n, B, L]."""
    obs, action, _, co = data

    def surrogate(params):
        own = ego_log_probs(problem, params, obs, action)
        probability = jax.lax.stop_gradient(jnp.exp(own.sum((1, 2)) + co))
        return jnp.sum(probability * jnp.sum(weights * own, (1, 2)))

    return jax.jit(jax.grad(surrogate))(params)


def estimator_variance(problem, params, data, weights):
    """Total variance of one sample."""
    obs, action, _, co = data

    def sample(params, o, a, w):
        return jnp.sum(w * log_prob(problem.ego.parallel(params, o, None)[0], a))

    @jax.jit
    def moments(params):
        gradients = jax.vmap(jax.grad(sample), in_axes=(None, 0, 0, 0))(
            params, obs, action, weights
        )
        probability = jnp.exp(ego_log_probs(problem, params, obs, action).sum((1, 2)) + co)
        flat = jnp.concatenate([g.reshape(g.shape[0], -1) for g in jax.tree.leaves(gradients)], 1)
        mean = probability @ flat
        return probability @ jnp.sum(jnp.square(flat), 1) - jnp.sum(jnp.square(mean))

    return float(moments(params))
