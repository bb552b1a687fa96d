"""Models of other libraries as base models: a list of blocks that share one contract.

gemma (linen), tunix (nnx) and flax's gemma example (nnx) are all made of

    embed(params, tokens [n, T]) → x [n, T, D]
    block(params, x, positions [n, T], layer_cache, mask [n, T, S]) → (layer_cache, x)
    final_norm(params, x) → x;   head(params, x) → logits [n, T, V]

with a cache per layer, {"k": [n, S, K, d], "v": [n, S, K, d], "end_index": [n]}, into which a block writes its new keys
and values from `end_index` on. Without a cache S = T. Here they are plain functions of their weights: bind a module's
`apply` (linen) or merge it (nnx) inside them.

Resets inside a row are told to such a model by its mask and its positions alone. With a cache, a reset starts it anew; so
passes with a cache and resets go token by token.

Letters: n sequences, T tokens, S tokens that may be attended to, D width, V tokens of the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from agents.distributions import Distribution, categorical
from internal_rl.models.contract import Params
from internal_rl.models.decoders.decoder import placed


@dataclass(frozen=True)
class BlockNetwork:
    """See `SplitNetwork`, and the first lines of this module for the functions."""

    embed: Callable[[Params, jax.Array], jax.Array]
    blocks: tuple[Callable[..., tuple[Any, jax.Array]], ...]
    final_norm: Callable[[Params, jax.Array], jax.Array]
    head: Callable[[Params, jax.Array], jax.Array]
    init_params: Callable[[jax.Array], Params]
    width: int
    kv_shape: tuple[int, int]
    """(K, d) of a layer's cache."""
    max_len: int
    num_actions: int
    """The first so many tokens of the vocabulary are actions."""

    @property
    def depth(self) -> int:
        """L."""
        return len(self.blocks)

    def init(self, key: jax.Array) -> Params:
        """Fresh weights."""
        return self.init_params(key)

    def bind(self, params: Params, layer: int) -> "BlockModel":
        """The model cut after `layer` blocks."""
        return BlockModel(self, params, layer)


def from_blocks(**parts: Any) -> BlockNetwork:
    """A foreign model as a `SplitNetwork`; the arguments are the fields of `BlockNetwork`, `blocks` any sequence."""
    return BlockNetwork(**{**parts, "blocks": tuple(parts["blocks"])})


@dataclass(frozen=True)
class BlockModel:
    """See `SplitModel`. Outputs are the logits [..., V]."""

    net: BlockNetwork
    params: Any
    layer: int

    @property
    def width(self) -> int:
        """D."""
        return self.net.width

    def init_carry(self, batch: int) -> tuple[Any, Any]:
        """Empty caches of both halves."""
        shape = (batch, self.net.max_len, *self.net.kv_shape)

        def one() -> dict[str, jax.Array]:
            return {
                "k": jnp.zeros(shape),
                "v": jnp.zeros(shape),
                "end_index": jnp.zeros((batch,), jnp.int32),
            }

        layers = [one() for _ in self.net.blocks]
        lower, upper = tuple(layers[: self.layer]), tuple(layers[self.layer :])
        zero = jnp.zeros((batch,), jnp.int32)
        return (zero, lower), (zero, upper)

    def lower(
        self, obs: jax.Array, carry: Any = None, reset: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """Tokens [n, T] → e [n, T, D]."""
        x = self.net.embed(self.params, obs)
        return self._run(x, carry, reset, self.net.blocks[: self.layer])

    def upper(
        self, e: jax.Array, carry: Any = None, reset: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """e [n, T, D] → logits [n, T, V]."""
        carry, x = self._run(e, carry, reset, self.net.blocks[self.layer :])
        return carry, self.net.head(self.params, self.net.final_norm(self.params, x))

    def lower_step(
        self, obs: jax.Array, carry: Any, reset: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """One token [n] → e [n, D]."""
        carry, e = self.lower(obs[:, None], carry, None if reset is None else reset[:, None])
        return carry, e[:, 0]

    def upper_step(
        self, e: jax.Array, carry: Any, reset: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """One token of e [n, D] → logits [n, V]."""
        carry, out = self.upper(e[:, None], carry, None if reset is None else reset[:, None])
        return carry, out[:, 0]

    def action_distribution(self, out: jax.Array) -> Distribution:
        """The next token among the world's actions."""
        return categorical(out[..., : self.net.num_actions])

    def observation_log_prob(self, out: jax.Array, next_obs: jax.Array) -> jax.Array:
        """log p of the next token in nats."""
        return categorical(out).log_prob(next_obs)

    def _run(
        self, x: jax.Array, carry: Any, reset: jax.Array | None, blocks: tuple
    ) -> tuple[Any, jax.Array]:
        if carry is None:
            place = placed(x.shape[:2], reset, None)
            for block in blocks:
                _, x = block(self.params, x, place.position, None, place.within)
            return None, x
        steps = x.shape[1]
        if reset is not None and steps > 1:

            def one(carry: Any, token: tuple) -> tuple[Any, jax.Array]:
                carry, y = self._run(token[0][:, None], carry, token[1][:, None], blocks)
                return carry, y[:, 0]

            inputs = jnp.swapaxes(x, 0, 1), reset.T
            carry, y = jax.lax.scan(one, carry, inputs)
            return carry, jnp.swapaxes(y, 0, 1)
        length, caches = carry
        if reset is not None:
            length = jnp.where(reset[:, 0], 0, length)
        position = length[:, None] + jnp.arange(steps, dtype=jnp.int32)[None]  # [n, T]
        slots = jnp.arange(self.net.max_len, dtype=jnp.int32)
        mask = slots[None, None] <= position[:, :, None]  # [n, T, S]
        after = []
        for block, cache in zip(blocks, caches, strict=True):
            cache, x = block(self.params, x, position, {**cache, "end_index": length}, mask)
            after.append(cache)
        return (length + steps, tuple(after)), x
