"""Residual blocks and stacks of them (App. D.1): x += Mixer(Norm(x)); x += MLP(Norm(x))."""

import jax
import jax.numpy as jnp
from flax import nnx

from internal_rl.config import ModelConfig
from internal_rl.models.nn.attention import Attention
from internal_rl.models.nn.hawk import Hawk
from internal_rl.models.nn.layers import MLP, make_norm

ALL = slice(None)


def residual_scale(cfg: ModelConfig) -> float:
    """Variance scaling of the matrices that write into the residual stream."""
    match cfg.residual_init:
        case "same":
            return cfg.init_scale
        case "depth_scaled":
            return 2.0 / max(cfg.depth, 1)
    raise ValueError(f"residual_init = {cfg.residual_init!r}: must be 'same' or 'depth_scaled'")


def make_mixer(cfg: ModelConfig, rngs: nnx.Rngs, max_len: int) -> Attention | Hawk:
    """The sequence mixer named `cfg.mixer`; `max_len` is the length of the attention's cache.

    Raises ValueError naming the setting for an unknown mixer or sizes that do not fit.
    """
    if cfg.width < 1:
        raise ValueError(f"width = {cfg.width}: must be at least 1")
    match cfg.mixer:
        case "transformer":
            return Attention(
                cfg.width,
                cfg.num_heads,
                cfg.head_dim,
                num_buckets=cfg.num_buckets,
                max_distance=cfg.max_distance,
                max_len=max_len,
                scale=cfg.init_scale,
                out_scale=residual_scale(cfg),
                rngs=rngs,
            )
        case "hawk":
            return Hawk(
                cfg.width,
                cfg.lru_width,
                cfg.lru_blocks,
                conv_width=cfg.conv_width,
                ring_applies_to=cfg.ring_applies_to,
                scale=cfg.init_scale,
                out_scale=residual_scale(cfg),
                rngs=rngs,
            )
    raise ValueError(f"mixer = {cfg.mixer!r}: must be 'transformer' or 'hawk'")


class Block(nnx.Module):
    """One pre-norm residual block on the mixers' contract."""

    def __init__(self, cfg: ModelConfig, *, max_len: int, rngs: nnx.Rngs):
        if cfg.mlp_width < 1:
            raise ValueError(f"mlp_width = {cfg.mlp_width}: must be at least 1")
        self.mixer_norm = make_norm(cfg.norm_kind, cfg.width, rngs)
        self.mixer = make_mixer(cfg, rngs, max_len)
        self.mlp_norm = make_norm(cfg.norm_kind, cfg.width, rngs)
        self.mlp = MLP(
            cfg.width,
            cfg.mlp_width,
            cfg.width,
            scale=cfg.init_scale,
            out_scale=residual_scale(cfg),
            rngs=rngs,
        )

    def init_carry(self, batch_shape: tuple[int, ...], dtype=jnp.float32):
        return self.mixer.init_carry(batch_shape, dtype)

    def __call__(self, x: jax.Array, carry=None, reset=None, valid=None):
        carry, mixed = self.mixer(self.mixer_norm(x), carry, reset, valid)
        x = x + mixed
        return carry, x + self.mlp(self.mlp_norm(x))

    def step(self, x: jax.Array, carry, reset=None):
        carry, mixed = self.mixer.step(self.mixer_norm(x), carry, reset)
        x = x + mixed
        return carry, x + self.mlp(self.mlp_norm(x))


class Stack(nnx.Module):
    """`num_blocks` residual blocks, without a final norm; with 0 blocks the identity.

    The contract, which every mixer shares:

    - `init_carry((B,))` is the state before the first token of an episode. A carry is a pytree of
      arrays of fixed shape, batch first; floats are float32.
    - `__call__(x [B, T, D], carry, reset [B, T], valid [B, T]) -> (carry, y [B, T, D])`, all tokens
      at once. Without a carry the sequence starts fresh and None is returned in its place, at no
      cost.
    - `step(x [B, D], carry, reset [B]) -> (carry, y [B, D])`, one token; same numbers as
      `__call__`.
    - `reset` marks the first token of a new segment: nothing from before reaches it or anything
      after it.
    - `valid` False marks tokens that do not exist: they change neither the carry nor any other
      token, and y is meaningless there. Any pattern is accepted here; the mixers alone want it at
      the end of the row.
    - `part` runs some of the blocks, whose carries alone are given and returned: the base model is
      cut in two this way.
    """

    def __init__(self, cfg: ModelConfig, num_blocks: int, *, max_len: int, rngs: nnx.Rngs):
        """`max_len` is how many tokens attention reaches back (unused by Hawk)."""
        if num_blocks < 0:
            raise ValueError(f"num_blocks = {num_blocks}: must be at least 0")
        self.blocks = nnx.List([Block(cfg, max_len=max_len, rngs=rngs) for _ in range(num_blocks)])

    def init_carry(
        self, batch_shape: tuple[int, ...], dtype=jnp.float32, part: slice = ALL
    ) -> tuple:
        return tuple(block.init_carry(batch_shape, dtype) for block in self.blocks[part])

    def __call__(
        self,
        x: jax.Array,
        carry: tuple | None = None,
        reset: jax.Array | None = None,
        valid: jax.Array | None = None,
        part: slice = ALL,
    ) -> tuple[tuple | None, jax.Array]:
        order = None
        if valid is not None:
            # Move the tokens that exist to the front of each row; without gaps this is the
            # identity.
            order = jnp.argsort(~valid, axis=1, stable=True)
            x = jnp.take_along_axis(x, order[:, :, None], axis=1)
            reset = None if reset is None else jnp.take_along_axis(reset, order, axis=1)
            valid = jnp.take_along_axis(valid, order, axis=1)
        after = []
        for index, block in enumerate(self.blocks[part]):
            block_carry, x = block(x, None if carry is None else carry[index], reset, valid)
            after.append(block_carry)
        if order is not None:
            x = jnp.take_along_axis(x, jnp.argsort(order, axis=1)[:, :, None], axis=1)
        return (None if carry is None else tuple(after)), x

    def step(
        self,
        x: jax.Array,
        carry: tuple,
        reset: jax.Array | None = None,
        part: slice = ALL,
    ) -> tuple[tuple, jax.Array]:
        after = []
        for block, block_carry in zip(self.blocks[part], carry, strict=True):
            block_carry, x = block.step(x, block_carry, reset)
            after.append(block_carry)
        return tuple(after), x
