"""Recurrent policy with a critic on the GRU: the A2C baseline of predictive policy improvement (arXiv 2602.16301).

Linear embedding of the observation → GRU → swish → logits and value, both read-outs zero at the start.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from agents.learning_aware.policies import Params, Policy
from envs.social.game import SocialGame
from internal_rl.models.networks import Network
from internal_rl.models.nn import dense
from internal_rl.models.nn.gru import GRUHistory
from internal_rl.social.config import PolicyConfig


class GRUPolicyNetwork(nnx.Module):
    """Letters: B chains, L steps, O encoded observation, A actions."""

    def __init__(self, cfg: PolicyConfig, obs_dim: int, num_actions: int, *, rngs: nnx.Rngs):
        self.embed = dense(obs_dim, cfg.embed, scale=cfg.init_scale, rngs=rngs)
        self.gru = GRUHistory(cfg.embed, cfg.width, rngs, scale=cfg.init_scale)
        self.logits = dense(cfg.width, num_actions, scale=0.0, rngs=rngs)
        self.value = dense(cfg.width, 1, scale=0.0, rngs=rngs)

    def __call__(self, x: jax.Array, reset: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """x [B, L, O], reset [B, L] → logits [B, L, A], values [B, L]; starts fresh."""
        _, h = self.gru(self.embed(x), None, reset)
        return self._head(h)

    def step(
        self, x: jax.Array, carry: jax.Array, reset: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B, O], reset [B] → carry, logits [B, A], values [B]."""
        carry, h = self.gru.step(self.embed(x), carry, reset)
        return carry, *self._head(h)

    def _head(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jax.nn.swish(h)
        return self.logits(h), self.value(h)[..., 0]


def gru_policy(cfg: PolicyConfig, game: SocialGame) -> Policy:
    """The network as a policy value. Its memory runs through the whole meta-episode."""

    def construct(rngs: nnx.Rngs) -> GRUPolicyNetwork:
        return GRUPolicyNetwork(cfg, game.obs_dim, game.num_actions, rngs=rngs)

    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    network = Network(construct, nnx.split(shape, nnx.Param)[0])

    def step(params: Params, obs: jax.Array, carry: jax.Array) -> tuple:
        return network.bind(params).step(game.encode(obs), carry, None)

    def parallel(params: Params, obs: jax.Array, reset: jax.Array | None) -> tuple:
        return network.bind(params)(game.encode(obs), reset)

    return Policy(
        init=network.init,
        init_carry=lambda batch: jnp.zeros((batch, cfg.width)),
        step=step,
        parallel=parallel,
    )
