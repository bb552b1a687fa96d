"""Long-context policy on the Hawk mixer that the base models use (COALA, App. F): constant cost per step.

Linear embedding → residual Hawk blocks → RMSNorm → logits and value, both read-outs zero at the start. The blocks' MLP is
the base models' ungated one, where the paper has a gated one.
"""

import jax
from flax import nnx

from agents.learning_aware.policies import Policy
from envs.social.game import SocialGame
from internal_rl.config import ModelConfig
from internal_rl.networks import Network
from internal_rl.nn import Stack, dense, make_norm
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
            controlled_layer=0,
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

    def step(self, x: jax.Array, carry: tuple) -> tuple[tuple, jax.Array, jax.Array]:
        """x [B, O] → carry, logits [B, A], values [B]."""
        carry, x = self.stack.step(self.embed(x), carry)
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

    def init_carry(batch: int) -> tuple:
        # A carry depends on sizes only, so any instance gives it.
        return nnx.merge(network.structure, _zeros(shape)).stack.init_carry((batch,))

    return Policy(
        init=network.init,
        init_carry=init_carry,
        step=lambda params, obs, carry: network.bind(params).step(game.encode(obs), carry),
        parallel=lambda params, obs, reset: network.bind(params)(game.encode(obs), reset),
    )


def _zeros(module: SocialNetwork) -> dict:
    state = nnx.to_pure_dict(nnx.split(module, nnx.Param)[1])
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), state)
