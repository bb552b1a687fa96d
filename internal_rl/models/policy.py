"""π(z | e_1:t): the causal policy that takes the encoder's place in internal RL (paper App. C.5)."""

import math
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from internal_rl.config import ModelConfig, ReinforceConfig
from internal_rl.models.networks import Network, make_network
from internal_rl.models.nn import Stack, dense, make_norm


class AbstractPolicy(nnx.Module):
    """One Hawk block, recurrent over abstract steps; Gaussian over codes.

    Its time advances only where the switching unit fires: on raw-step sequences those steps are marked `valid` and all
    others leave the carry as it is. Letters: B batch, T raw steps, D residual stream, Z code.
    """

    def __init__(
        self,
        cfg: ReinforceConfig,
        code_dim: int,
        width: int,
        *,
        rngs: nnx.Rngs,
    ):
        block = ModelConfig(
            mixer="hawk",
            width=cfg.policy_width,
            mlp_width=2 * cfg.policy_width,
            lru_width=cfg.policy_width,
            lru_blocks=cfg.policy_lru_blocks,
            norm="rmsnorm",
            depth=1,
            init_scale=1.0,
        )
        self.code_dim = code_dim
        self.input_norm = make_norm("layernorm", width, rngs)
        self.embed = dense(width, cfg.policy_width, scale=1.0, rngs=rngs)
        self.stack = Stack(block, 1, max_len=1, rngs=rngs)
        self.norm = make_norm("rmsnorm", cfg.policy_width, rngs)
        # A nearly zero head: training starts from the codes' prior N(0, initial_std² I).
        self.head = dense(cfg.policy_width, 2 * code_dim, scale=1e-4, rngs=rngs)
        self.initial_log_std = math.log(cfg.initial_std)

    def init_carry(self, batch: int) -> Any:
        """Fresh carry for `batch` episodes."""
        return self.stack.init_carry((batch,))

    def __call__(self, e: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log standard deviation [B, T, Z] at every step; meaningful where `valid` [B, T]."""
        _, x = self.stack(self.embed(self.input_norm(e)), None, None, valid)
        return self._head(x)

    def step(self, e: jax.Array, carry: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        """One abstract step: e [B, D] → carry, (mean, log standard deviation) [B, Z]."""
        carry, x = self.stack.step(self.embed(self.input_norm(e)), carry)
        return carry, self._head(x)

    def _head(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_std = jnp.split(self.head(self.norm(x)), 2, axis=-1)
        return mean, self.initial_log_std + jnp.clip(log_std, -5.0, 1.0)


@lru_cache(maxsize=64)
def policy_network(cfg: ReinforceConfig, code_dim: int, width: int) -> Network[AbstractPolicy]:
    """The policy of a config over codes of `code_dim` numbers, for a residual stream of this width."""
    return make_network(lambda rngs: AbstractPolicy(cfg, code_dim, width, rngs=rngs))
