"""The last decisions that each kind of reward followed, for a hindsight ratio of rare rewards.

One batch of a sparse task holds a handful of them. A ratio that is given the policy as input (COCOA,
arXiv 2306.16803, Prop. 5) can also learn from decisions of earlier policies, each against fresh actions
of its own policy; only what later policies do differently afterwards is missed. Letters as in `sampled`,
R entries per kind.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from agents.credit.sampled import Decisions


@struct.dataclass
class Replay:
    """Ring buffers of decisions, one per kind of reward.

    Attributes:
        obs, action, mean, log_std: as in `Decisions`.
        count: how often the kind was paid after the decision; 0: an empty entry.
        next: entry of each ring to be overwritten next.
    """

    obs: Float[Array, "K R D"]
    action: Float[Array, "K R Z"]
    mean: Float[Array, "K R Z"]
    log_std: Float[Array, "K R Z"]
    count: Float[Array, "K R"]
    next: Int[Array, " K"]


def empty(kinds: int, size: int, obs_dim: int, action_dim: int) -> Replay:
    """Without entries."""
    of = lambda *shape: jnp.zeros((kinds, size, *shape))  # noqa: E731
    return Replay(
        obs=of(obs_dim),
        action=of(action_dim),
        mean=of(action_dim),
        log_std=of(action_dim),
        count=of(),
        next=jnp.zeros(kinds, jnp.int32),
    )


def remember(replay: Replay, batch: Decisions, counts: Float[Array, "B N K"]) -> Replay:
    """With the decisions of `batch` [B, N] that a kind of reward followed; the oldest give way.

    Args:
        counts: how often each kind was paid after each decision. Of a batch with more than R decisions
            of a kind the first R are taken.
    """
    size = replay.count.shape[1]
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    found = {name: flat(getattr(batch, name)) for name in ("obs", "action", "mean", "log_std")}

    def of_kind(ring: Replay, count: Float[Array, " D"]) -> Replay:
        order = jnp.argsort(count <= 0, stable=True)[:size]
        new = count[order] > 0
        rank = jnp.arange(order.shape[0], dtype=jnp.int32)
        # Out of range, hence dropped, where there is nothing to remember.
        slot = jnp.where(new, (ring.next + rank) % size, size)
        put = lambda old, x: old.at[slot].set(x[order], mode="drop")  # noqa: E731
        return Replay(
            **{name: put(getattr(ring, name), x) for name, x in found.items()},
            count=put(ring.count, count),
            next=(ring.next + jnp.sum(new, dtype=jnp.int32)) % size,
        )

    return jax.vmap(of_kind, in_axes=(0, 1))(replay, flat(counts))
