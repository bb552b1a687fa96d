"""Causal multi-head attention with T5 relative-position buckets (Raffel et al. 2020) and a
key-value cache.

Attention reaches back over at most `max_len` tokens, itself included, in every mode: longer
episodes slide that window forward, and distances stay true. The cache is a queue with the newest
token last, so the distance to each of its slots, and with it the position bias, is the same at
every step.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax import lax

from internal_rl.models.nn.layers import dense, scaled_normal

# Finite, so that a masked logit can never turn into NaN; exp of it is exactly 0.
MASKED = -1e30


def causal_buckets(distance: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """T5's bucket of each distance ≥ 0 (query position - key position), int32 of the same shape.

    The first half of the buckets are the distances 0, 1, 2, …; the rest widen logarithmically up to
    `max_distance`, from where everything shares the last one. NumPy at trace time: a logarithm
    computed on a device can move a boundary by one.
    """
    distance = np.maximum(np.asarray(distance), 0)
    exact = num_buckets // 2
    ratio = distance.astype(np.float32) / np.float32(exact) + np.finfo(np.float32).eps
    widened = np.log(np.maximum(ratio, 1.0)) / np.log(max_distance / exact) * (num_buckets - exact)
    far = np.minimum(num_buckets - 1, exact + widened.astype(np.int32))
    return np.where(distance < exact, distance, far).astype(np.int32)


class KVCache(struct.PyTreeNode):
    """The last `max_len` tokens, newest last; the first max_len - count slots are stale."""

    keys: jax.Array  # [B, H, L, d]
    values: jax.Array  # [B, H, L, d]
    count: jax.Array  # [B] int32, tokens since the last reset, at most L


class Attention(nnx.Module):
    """o_i = Σ_j softmax_j(q_i · k_j / √d + bias[bucket(i - j)]) v_j, j ≤ i in the same segment."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_dim: int,
        *,
        num_buckets: int,
        max_distance: int,
        max_len: int,
        scale: float,
        out_scale: float,
        rngs: nnx.Rngs,
    ):
        """Raises ValueError naming the setting if one is out of range."""
        for name, size in (("num_heads", num_heads), ("head_dim", head_dim), ("max_len", max_len)):
            if size < 1:
                raise ValueError(f"{name} = {size}: must be at least 1")
        if num_buckets < 2 or num_buckets % 2:
            raise ValueError(f"num_buckets = {num_buckets}: must be even and at least 2")
        if max_distance <= num_buckets // 2:
            raise ValueError(
                f"max_distance = {max_distance}: must exceed num_buckets / 2 = {num_buckets // 2}"
            )
        inner = num_heads * head_dim
        self.query = dense(width, inner, scale=scale, rngs=rngs)
        self.key = dense(width, inner, scale=scale, rngs=rngs)
        self.value = dense(width, inner, scale=scale, rngs=rngs)
        self.out = dense(inner, width, scale=out_scale, rngs=rngs)
        # [N, H], so that the fan-in of the initialiser is the number of buckets.
        table = scaled_normal(scale)(rngs.params(), (num_buckets, num_heads), jnp.float32)
        self.relative_bias = nnx.Param(table)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.max_len = max_len

    def init_carry(self, batch_shape: tuple[int, ...], dtype=jnp.float32) -> KVCache:
        """An empty cache; the next token starts a segment."""
        shape = (*batch_shape, self.num_heads, self.max_len, self.head_dim)
        return KVCache(
            jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_shape, jnp.int32)
        )

    def __call__(
        self,
        x: jax.Array,
        carry: KVCache | None = None,
        reset: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[KVCache | None, jax.Array]:
        """x [B, T, D], reset and valid bool [B, T] -> (carry, y [B, T, D]).

        `valid` marks right padding: its rows are True then False. It only bounds what enters the
        cache, since a causal model never looks at the padding anyway; y is meaningless there.
        """
        length = x.shape[1]
        query, key, value = self._project(x)
        segment = None if reset is None else jnp.cumsum(reset, axis=1)  # [B, T] 0 = the carry's
        distance = np.arange(length)[:, None] - np.arange(length)[None]
        allowed = ((distance >= 0) & (distance < self.max_len))[None]  # [1, T, T]
        if segment is not None:
            allowed = allowed & (segment[:, :, None] == segment[:, None, :])
        if carry is None:
            return None, self._attend(query, key, value, allowed)

        slots = self.max_len
        distance = slots + np.arange(length)[:, None] - np.arange(slots)[None]  # to the cache
        filled = np.arange(slots, dtype=np.int32)[None] >= slots - carry.count[:, None]  # [B, L]
        cached = (distance < slots)[None] & filled[:, None, :]  # [B, T, L]
        if segment is not None:
            cached = cached & (segment == 0)[:, :, None]
        allowed = jnp.broadcast_to(jnp.asarray(allowed), (x.shape[0], length, length))
        keys = jnp.concatenate([carry.keys, key], axis=2)  # [B, H, L+T, d]
        values = jnp.concatenate([carry.values, value], axis=2)
        y = self._attend(query, keys, values, jnp.concatenate([cached, allowed], axis=2))
        return self._cache_after(keys, values, carry.count, reset, valid), y

    def step(
        self, x: jax.Array, carry: KVCache, reset: jax.Array | None = None
    ) -> tuple[KVCache, jax.Array]:
        """One token: x [B, D], reset bool [B] -> (carry, y [B, D]).

        Its cost, O(max_len · D), does not depend on how many tokens came before.
        """
        query, key, value = self._project(x[:, None])
        count = carry.count if reset is None else jnp.where(reset, 0, carry.count)
        count = jnp.minimum(count + 1, self.max_len)
        keys = jnp.concatenate([carry.keys[:, :, 1:], key], axis=2)
        values = jnp.concatenate([carry.values[:, :, 1:], value], axis=2)
        slot = np.arange(self.max_len, dtype=np.int32)
        filled = slot[None] >= self.max_len - count[:, None]  # [B, L]
        y = self._attend(query, keys, values, filled[:, None, :])
        return KVCache(keys, values, count), y[:, 0]

    def _project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Scaled queries, keys and values, each [B, H, T, d], from x [B, T, D]."""

        def heads(y: jax.Array) -> jax.Array:
            return y.reshape(*y.shape[:2], self.num_heads, self.head_dim).transpose(0, 2, 1, 3)

        query = heads(self.query(x)) * self.head_dim**-0.5
        return query, heads(self.key(x)), heads(self.value(x))

    def _attend(self, query, keys, values, allowed) -> jax.Array:
        """query [B, H, T, d], keys and values [B, H, S, d], allowed [B or 1, T, S] -> [B, T, D].

        The queries are the last T of the S positions.
        """
        batch, _, length, _ = query.shape
        logits = jnp.matmul(query, keys.swapaxes(2, 3)) + self._bias(length, keys.shape[2])[None]
        logits = jnp.where(allowed[:, None], logits, MASKED)  # [B, H, T, S]
        mixed = jnp.matmul(jax.nn.softmax(logits, axis=-1), values).transpose(0, 2, 1, 3)
        return self.out(mixed.reshape(batch, length, self.num_heads * self.head_dim))

    def _bias(self, length: int, span: int) -> jax.Array:
        """Bias [H, T, S] of the last T of S positions; it depends on the distance alone.

        One bias per offset (key - query), then row i is that vector shifted by i, which repeating
        the vector and cutting the copies one element shorter does without a [T, S] gather (and its
        scatter in the gradient).
        """
        count = length + span
        offset = np.arange(count)
        offset = np.where(offset < span, offset, offset - count)
        bucket = causal_buckets(span - length - offset, self.num_buckets, self.max_distance)
        one_hot = (bucket[:, None] == np.arange(self.num_buckets)[None]).astype(np.float32)
        table = self.relative_bias[...]
        by_offset = jnp.matmul(
            jnp.asarray(one_hot, table.dtype), table, precision=lax.Precision.HIGHEST
        ).T  # [H, T+S]
        repeated = jnp.broadcast_to(by_offset[:, None], (self.num_heads, length, count))
        flat = repeated.reshape(self.num_heads, length * count)[:, : length * (count - 1)]
        return flat.reshape(self.num_heads, length, count - 1)[:, :, :span]

    def _cache_after(self, keys, values, count, reset, valid) -> KVCache:
        """The last L positions up to each row's last valid token, out of [B, H, L+T, d]."""
        batch, length = keys.shape[0], keys.shape[2] - self.max_len
        if reset is None:
            reset = jnp.zeros((batch, length), bool)
        if valid is None:
            used = jnp.full((batch,), length, jnp.int32)
            keys, values = keys[:, :, length:], values[:, :, length:]
        else:
            used = valid.sum(axis=1, dtype=jnp.int32)
            index = used[:, None] + np.arange(self.max_len, dtype=np.int32)[None]  # [B, L]
            index = index[:, None, :, None]
            keys = jnp.take_along_axis(keys, index, axis=2)
            values = jnp.take_along_axis(values, index, axis=2)
        time = np.arange(length, dtype=np.int32)[None]
        # Where the last segment began; minus `count` if it began before this call.
        start = jnp.where(reset & (time < used[:, None]), time, -count[:, None]).max(axis=1)
        return KVCache(keys, values, jnp.minimum(used - start, self.max_len))
