"""The autoregressive base model, cut at the controlled layer (paper App. D.1).

    obs → embed → blocks 1..l → e (residual stream, the write point) → blocks l+1..L → norm → heads

`lower` gives e; `upper` takes it, possibly changed by a controller. Each half has its own carry, so that a rollout can
cache both and nothing has to hook into the middle of a network. Letters: B batch, T time, D width, O observation size.
"""

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from agents.distributions import (
    ActionSpec,
    Distribution,
    categorical,
    diagonal_gaussian,
    factored_log_prob,
)
from internal_rl.config import ModelConfig
from internal_rl.nn import Stack, dense, make_norm

Carry = Any


@dataclass(frozen=True)
class ObservationSpec:
    """What one observation is: one-hot blocks of `factor_sizes`, or `dim` real numbers if there are none."""

    dim: int
    factor_sizes: tuple[int, ...] = ()


@flax.struct.dataclass
class Outputs:
    """Parameters of the two predictive distributions, any leading shape."""

    action: jax.Array
    """Logits [..., A], or the Gaussian's mean."""
    action_log_std: jax.Array
    """[A] learned diagonal log standard deviation (zeros that nothing reads for discrete actions)."""
    observation: jax.Array
    """Logits of the next observation's factors, or its mean [..., O]."""


class BaseModel(nnx.Module):
    """f_θ: observations in, next-action and next-observation distributions out.

    Args:
        cfg: sizes; `cfg.controlled_layer` = l in 0..L.
        obs: observation specification.
        action: action specification.
        max_len: steps a cached rollout may last.
        rngs: parameter keys.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        obs: ObservationSpec,
        action: ActionSpec,
        *,
        max_len: int,
        rngs: nnx.Rngs,
    ):
        layer = cfg.controlled_layer
        if not 0 <= layer <= cfg.depth:
            raise ValueError(
                f"model.controlled_layer = {layer}: must lie in 0..model.depth = 0..{cfg.depth}"
            )
        self.obs_spec = obs
        self.action_spec = action
        self.embed = dense(obs.dim, cfg.width, scale=cfg.init_scale, rngs=rngs)
        self.lower_stack = Stack(cfg, layer, max_len=max_len, rngs=rngs)
        self.upper_stack = Stack(cfg, cfg.depth - layer, max_len=max_len, rngs=rngs)
        self.final_norm = make_norm(cfg.norm_kind, cfg.width, rngs)
        self.action_head = dense(cfg.width, action.param_dim, scale=cfg.init_scale, rngs=rngs)
        self.obs_head = dense(cfg.width, obs.dim, scale=cfg.init_scale, rngs=rngs)
        self.action_log_std = nnx.Param(jnp.zeros((action.param_dim,)))

    def init_carry(self, batch: int) -> tuple[Carry, Carry]:
        """Fresh (lower, upper) carries for `batch` sequences."""
        return self.lower_stack.init_carry((batch,)), self.upper_stack.init_carry((batch,))

    def lower(
        self,
        obs: jax.Array,
        carry: Carry = None,
        reset: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Observations [B, T, O] → residual stream e after l blocks [B, T, D].

        `reset` [B, T] marks the first token of every trajectory. Padding on the right needs no mask: the model is causal.
        """
        return self.lower_stack(self.embed(obs), carry, reset)

    def upper(
        self,
        e: jax.Array,
        carry: Carry = None,
        reset: jax.Array | None = None,
    ) -> tuple[Carry, Outputs]:
        """Residual stream [B, T, D], controlled or not → predictive distributions."""
        carry, x = self.upper_stack(e, carry, reset)
        return carry, self._heads(x)

    def lower_step(
        self, obs: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """One step of `lower` with its carry: [B, O] → [B, D]."""
        return self.lower_stack.step(self.embed(obs), carry, reset)

    def upper_step(
        self, e: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, Outputs]:
        """One step of `upper` with its carry: [B, D] → outputs [B, ...]."""
        carry, x = self.upper_stack.step(e, carry, reset)
        return carry, self._heads(x)

    def __call__(self, obs: jax.Array, reset: jax.Array | None = None) -> Outputs:
        """The uncontrolled model on whole sequences [B, T, O]."""
        _, e = self.lower(obs, None, reset)
        return self.upper(e, None, reset)[1]

    def action_distribution(self, out: Outputs) -> Distribution:
        """p(a_t | o_1:t) as a distrax distribution."""
        if self.action_spec.num_actions:
            return categorical(out.action)
        return diagonal_gaussian(out.action, _match_rank(out.action_log_std, out.action))

    def observation_log_prob(self, out: Outputs, next_obs: jax.Array) -> jax.Array:
        """log p(o_{t+1} | o_1:t) in nats, [...]. Real-valued observations have unit variance."""
        if self.obs_spec.factor_sizes:
            return factored_log_prob(out.observation, next_obs, self.obs_spec.factor_sizes)
        zero = jnp.zeros_like(out.observation)
        return diagonal_gaussian(out.observation, zero).log_prob(next_obs)

    def _heads(self, x: jax.Array) -> Outputs:
        x = self.final_norm(x)
        return Outputs(
            action=self.action_head(x),
            action_log_std=self.action_log_std[...],
            observation=self.obs_head(x),
        )


def _match_rank(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
