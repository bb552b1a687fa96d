"""Every probability distribution of the project, behind three functions; distrax does the maths.

Letters: B batch, T time, A actions or action dimensions, F observation factors.
"""

from typing import Protocol, cast, runtime_checkable

import distrax
import jax
import jax.numpy as jnp


@runtime_checkable
class Distribution(Protocol):
    """What the project uses of a distrax distribution."""

    def sample(self, *, seed: jax.Array) -> jax.Array:
        """One draw per batch entry."""
        ...

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log-probability or log-density in nats, without the event axes."""
        ...

    def entropy(self) -> jax.Array:
        """Entropy in nats, without the event axes."""
        ...


def categorical(logits: jax.Array) -> Distribution:
    """Distribution over integers from logits [..., A]."""
    return cast(Distribution, distrax.Categorical(logits=logits))


def diagonal_gaussian(mean: jax.Array, log_std: jax.Array) -> Distribution:
    """Gaussian over vectors [..., A] with diagonal covariance; `log_std` broadcasts against `mean`."""
    log_std = jnp.broadcast_to(log_std, mean.shape)
    components = distrax.Normal(loc=mean, scale=jnp.exp(log_std))
    return cast(Distribution, distrax.Independent(components, reinterpreted_batch_ndims=1))


def kl_to_standard_normal(mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """KL(N(mean, diag exp(2 log_std)) ‖ N(0, I)) in nats, summed over the last axis."""
    variance = jnp.exp(2.0 * log_std)
    return 0.5 * jnp.sum(variance + jnp.square(mean) - 1.0 - 2.0 * log_std, axis=-1)


def factored_log_prob(
    logits: jax.Array, one_hots: jax.Array, factor_sizes: tuple[int, ...]
) -> jax.Array:
    """Log-likelihood of a concatenation of one-hot blocks, each an independent categorical.

    Args:
        logits: [..., sum(factor_sizes)].
        one_hots: same shape; block f has a single one.
        factor_sizes: sizes of the F blocks.

    Returns:
        [...] nats, summed over the blocks.
    """
    total = jnp.zeros(logits.shape[:-1], logits.dtype)
    start = 0
    for size in factor_sizes:
        block = slice(start, start + size)
        total += jnp.sum(
            jax.nn.log_softmax(logits[..., block], axis=-1) * one_hots[..., block], axis=-1
        )
        start += size
    return total
