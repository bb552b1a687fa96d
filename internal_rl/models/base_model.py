"""The autoregressive base model (paper App. D.1), one `SplitNetwork` among others.

    obs → embed → blocks 1..l → e (residual stream, the write point) → blocks l+1..L → norm → heads

`lower` gives e; `upper` takes it, possibly changed by a controller. Each half has its own carry, so that a rollout can
cache both and nothing has to hook into the middle of a network. Weights do not depend on l. Letters: B batch, T time,
D width, O observation size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from agents.distributions import (
    Distribution,
    categorical,
    diagonal_gaussian,
    factored_log_prob,
)
from envs.world import ActionSpec, ObservationSpec
from internal_rl.config import ModelConfig
from internal_rl.models.contract import Carry, Params
from internal_rl.models.networks import Network, make_network
from internal_rl.models.nn import Stack, dense, make_norm
from internal_rl.models.nn.layers import per_feature

STATISTICS = ("obs_mean", "obs_std")


@flax.struct.dataclass
class Outputs:
    """Parameters of the two predictive distributions, any leading shape."""

    action: jax.Array
    """Logits [..., A], or the Gaussian's mean in units in which the bounds are −1 and 1."""
    action_log_std: jax.Array
    """[A] learned diagonal log standard deviation (zeros that nothing reads for discrete actions), same units."""
    observation: jax.Array
    """Logits of the next observation's factors or token, or its mean [..., O] in normalised units."""


class BaseModel(nnx.Module):
    """f_θ: observations in, next-action and next-observation distributions out.

    Args:
        cfg: sizes.
        obs: observation specification.
        action: action specification.
        max_len: steps a cached rollout may last.
        rngs: parameter keys.

    `layer`, the cut, is set on the bound module (`ResidualNetwork.bind`); a new one is cut at L / 2.
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
        self.obs_spec = obs
        self.action_spec = action
        self.layer = cfg.depth // 2
        self.width = cfg.width
        size = obs.num_tokens or obs.dim
        self.embed = dense(size, cfg.width, scale=cfg.init_scale, rngs=rngs)
        self.stack = Stack(cfg, cfg.depth, max_len=max_len, rngs=rngs)
        self.final_norm = make_norm(cfg.norm_kind, cfg.width, rngs)
        self.action_head = dense(cfg.width, action.param_dim, scale=cfg.init_scale, rngs=rngs)
        self.obs_head = dense(cfg.width, size, scale=cfg.init_scale, rngs=rngs)
        self.action_log_std = nnx.Param(jnp.zeros((action.param_dim,)))
        if obs.is_real:  # fixed numbers that travel with the weights
            self.obs_mean = nnx.Param(jnp.zeros((obs.dim,)))
            self.obs_std = nnx.Param(jnp.ones((obs.dim,)))

    def init_carry(self, batch: int) -> tuple[Carry, Carry]:
        """Fresh (lower, upper) carries for `batch` sequences."""
        return (
            self.stack.init_carry((batch,), part=self._below),
            self.stack.init_carry((batch,), part=self._above),
        )

    def lower(
        self,
        obs: jax.Array,
        carry: Carry = None,
        reset: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Observations [B, T, *O] → residual stream e after l blocks [B, T, D].

        `reset` [B, T] marks the first token of every trajectory. Padding on the right needs no mask: the model is causal.
        """
        return self.stack(self._embed(obs), carry, reset, part=self._below)

    def upper(
        self,
        e: jax.Array,
        carry: Carry = None,
        reset: jax.Array | None = None,
    ) -> tuple[Carry, Outputs]:
        """Residual stream [B, T, D], controlled or not → predictive distributions."""
        carry, x = self.stack(e, carry, reset, part=self._above)
        return carry, self._heads(x)

    def lower_step(
        self, obs: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """One step of `lower` with its carry: [B, *O] → [B, D]."""
        return self.stack.step(self._embed(obs), carry, reset, part=self._below)

    def upper_step(
        self, e: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, Outputs]:
        """One step of `upper` with its carry: [B, D] → outputs [B, ...]."""
        carry, x = self.stack.step(e, carry, reset, part=self._above)
        return carry, self._heads(x)

    def __call__(self, obs: jax.Array, reset: jax.Array | None = None) -> Outputs:
        """The uncontrolled model on whole sequences [B, T, *O]."""
        _, e = self.lower(obs, None, reset)
        return self.upper(e, None, reset)[1]

    def action_distribution(self, out: Outputs) -> Distribution:
        """p(a_t | o_1:t) as a distrax distribution."""
        spec = self.action_spec
        if spec.num_actions:
            return categorical(out.action)
        log_std = _match_rank(out.action_log_std, out.action)
        if (spec.low, spec.high) == (-1.0, 1.0):
            return diagonal_gaussian(out.action, log_std)
        mean = spec.middle + spec.half_range * out.action
        return diagonal_gaussian(mean, log_std + jnp.log(jnp.asarray(spec.half_range, mean.dtype)))

    def observation_log_prob(self, out: Outputs, next_obs: jax.Array) -> jax.Array:
        """log p(o_{t+1} | o_1:t) in nats, [...]. Real-valued observations have unit variance in normalised units."""
        if self.obs_spec.num_tokens:
            return categorical(out.observation).log_prob(next_obs)
        if self.obs_spec.factor_sizes:
            return factored_log_prob(out.observation, next_obs, self.obs_spec.factor_sizes)
        zero = jnp.zeros_like(out.observation)
        return diagonal_gaussian(out.observation, zero).log_prob(self._normalised(next_obs))

    @property
    def _below(self) -> slice:
        return slice(None, self.layer)

    @property
    def _above(self) -> slice:
        return slice(self.layer, None)

    def _embed(self, obs: jax.Array) -> jax.Array:
        if self.obs_spec.num_tokens:  # the dense layer on one-hot tokens
            rows = self.embed.kernel[...][obs]
            assert self.embed.bias is not None
            return rows + per_feature(self.embed.bias, rows)
        return self.embed(self._normalised(obs))

    def _normalised(self, obs: jax.Array) -> jax.Array:
        if not self.obs_spec.is_real:
            return obs
        mean, std = (jax.lax.stop_gradient(per_feature(getattr(self, n), obs)) for n in STATISTICS)
        return (obs - mean) / std

    def _heads(self, x: jax.Array) -> Outputs:
        x = self.final_norm(x)
        return Outputs(
            action=self.action_head(x),
            action_log_std=self.action_log_std[...],
            observation=self.obs_head(x),
        )


@dataclass(frozen=True)
class ResidualNetwork:
    """The `SplitNetwork` of a `ModelConfig`."""

    network: Network[BaseModel]
    width: int
    depth: int

    def init(self, key: jax.Array) -> Params:
        """Fresh weights."""
        return self.network.init(key)

    def bind(self, params: Params, layer: int) -> BaseModel:
        """The model cut after `layer` blocks."""
        model = self.network.bind(params)
        model.layer = layer
        return model

    def with_statistics(
        self, params: Params, mean: Sequence[float], std: Sequence[float]
    ) -> Params:
        """Weights that read real-valued observations as (obs − mean) / std; both [O]."""
        numbers = (jnp.asarray(x, jnp.float32) for x in (mean, std))
        return {**params, **dict(zip(STATISTICS, numbers, strict=True))}


@lru_cache(maxsize=64)
def residual_network(
    cfg: ModelConfig, obs: ObservationSpec, action: ActionSpec, max_len: int
) -> ResidualNetwork:
    """The network of a config; cached, because finding its structure takes a second."""
    network = make_network(lambda rngs: BaseModel(cfg, obs, action, max_len=max_len, rngs=rngs))
    return ResidualNetwork(network, cfg.width, cfg.depth)


def _match_rank(vector: jax.Array, like: jax.Array) -> Any:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
