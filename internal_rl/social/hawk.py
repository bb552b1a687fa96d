"""Long-context policy on the Hawk mixer that the base models use (COALA, App. F): constant cost per step.

Linear embedding → residual Hawk blocks → RMSNorm → logits and value, both read-outs zero at the start. The blocks' MLP is
the base models' ungated one, where the paper has a gated one.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from agents.learning_aware.policies import Params, Policy
from envs.social.game import SocialGame
from internal_rl.config import ModelConfig
from internal_rl.models.networks import Network
from internal_rl.models.nn import Stack, dense, make_norm
from internal_rl.social.config import PolicyConfig


class SocialNetwork(nnx.Module):
    """Letters: B chains, L steps, O encoded observation, A actions."""

    def __init__(self, cfg: PolicyConfig, obs_dim: int, num_actions: int, *, rngs: nnx.Rngs):
        block = ModelConfig(
            mixer="hawk",
            width=cfg.width,
            mlp_width=cfg.mlp_width,
            lru_width=cfg.width,
            lru_blocks=cfg.lru_blocks,
            norm="rmsnorm",
            depth=cfg.depth,
            init_scale=cfg.init_scale,
        )
        self.embed = dense(obs_dim, cfg.width, scale=1.0, rngs=rngs)
        self.stack = Stack(block, cfg.depth, max_len=1, rngs=rngs)
        self.norm = make_norm("rmsnorm", cfg.width, rngs)
        self.logits = dense(cfg.width, num_actions, scale=0.0, rngs=rngs)
        self.value = dense(cfg.width, 1, scale=0.0, rngs=rngs)

    def __call__(self, x: jax.Array, reset: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """x [B, L, O], reset [B, L] → logits [B, L, A], values [B, L]; starts fresh."""
        _, x = self.stack(self.embed(x), None, reset)
        return self._head(x)

    def step(
        self, x: jax.Array, carry: tuple, reset: jax.Array | None = None
    ) -> tuple[tuple, jax.Array, jax.Array]:
        """x [B, O], reset [B] → carry, logits [B, A], values [B]."""
        carry, x = self.stack.step(self.embed(x), carry, reset)
        return carry, *self._head(x)

    def _head(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.norm(x)
        return self.logits(x), self.value(x)[..., 0]


def hawk_policy(cfg: PolicyConfig, game: SocialGame) -> Policy:
    """The network as a policy value: parameters are nested dicts of arrays, so they stack and vmap."""

    def construct(rngs: nnx.Rngs) -> SocialNetwork:
        return SocialNetwork(cfg, game.obs_dim, game.num_actions, rngs=rngs)

    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    network = Network(construct, nnx.split(shape, nnx.Param)[0])

    # Steps after which the memory is emptied; 0 for never.
    span = {"meta_episode": 0, "inner_episode": game.episode_length, "step": 1}[cfg.memory]

    def init_carry(batch: int) -> tuple:
        # A carry depends on sizes only, so any instance gives it. All chains are at the same step.
        stack = nnx.merge(network.structure, _zeros(shape)).stack.init_carry((batch,))
        return stack, jnp.zeros((), jnp.int32)

    def step(params: Params, obs: jax.Array, carry: tuple) -> tuple:
        stack, time = carry
        reset = jnp.broadcast_to(time % span == 0, obs.shape[:1]) if span else None
        stack, logits, values = network.bind(params).step(game.encode(obs), stack, reset)
        return (stack, time + 1), logits, values

    def parallel(params: Params, obs: jax.Array, reset: jax.Array | None) -> tuple:
        if span:
            starts = jnp.broadcast_to(jnp.arange(obs.shape[1]) % span == 0, obs.shape[:2])
            reset = starts if reset is None else starts | reset
        return network.bind(params)(game.encode(obs), reset)

    return Policy(init=network.init, init_carry=init_carry, step=step, parallel=parallel)


def _zeros(module: SocialNetwork) -> dict:
    state = nnx.to_pure_dict(nnx.split(module, nnx.Param)[1])
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
