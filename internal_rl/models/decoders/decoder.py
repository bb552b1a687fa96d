"""GPT-2 and the Llama family as a `SplitNetwork`: observation = the last token, action = the next one.

    token → embedding (+ position) → blocks 1..l → e → blocks l+1..L → final norm → head

A reset begins a trajectory inside a row: nothing from before is attended to, and positions count from 0 again. The cache
holds `max_len` tokens per sequence, oldest first; it is filled in order, and an episode may not be longer.

Letters: n sequences, T tokens, S cached tokens, D width, H heads, K heads of keys and values, d size of a head, V tokens.
"""

from dataclasses import dataclass, replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from agents.distributions import Distribution, categorical
from envs.world import ActionSpec, ObservationSpec
from internal_rl.models.contract import Params
from internal_rl.models.decoders.config import DecoderConfig, check_decoder

MASKED = -1e30  # finite, so that no logit can turn into NaN; exp of it is exactly 0


@flax.struct.dataclass
class Cache:
    """Keys and values of some blocks for the last tokens of n sequences."""

    k: jax.Array  # [blocks, n, S, K, d]
    v: jax.Array  # [blocks, n, S, K, d]
    length: jax.Array  # [n] int32: tokens since the last reset, all of which are cached


@dataclass(frozen=True)
class DecoderNetwork:
    """See `SplitNetwork`. Weights are {"embed", "position"?, "blocks": {"0", …}, "final_norm", "head"?}."""

    cfg: DecoderConfig
    num_actions: int
    max_len: int

    @property
    def width(self) -> int:
        """D."""
        return self.cfg.width

    @property
    def depth(self) -> int:
        """L."""
        return self.cfg.depth

    def init(self, key: jax.Array) -> Params:
        """Fresh weights as GPT-2 draws them."""
        return init(self.cfg, key)

    def bind(self, params: Params, layer: int) -> "Decoder":
        """The model cut after `layer` blocks."""
        return Decoder(self, params, layer)


def decoder_network(
    cfg: DecoderConfig, obs: ObservationSpec, action: ActionSpec, max_len: int
) -> DecoderNetwork:
    """The decoder of a config in a world of tokens; a vocabulary of size 0 becomes the world's.

    Raises:
        ValueError: settings that do not fit together, a world without tokens, or one with more than the vocabulary.
    """
    if not obs.num_tokens or not action.num_actions:
        raise ValueError(
            "name='decoder': allowed in worlds of integer tokens, whose action is a token"
        )
    needed = max(obs.num_tokens, action.num_actions)
    cfg = replace(cfg, vocab_size=cfg.vocab_size or needed)
    check_decoder(cfg)
    if cfg.vocab_size < needed:
        raise ValueError(f"vocab_size={cfg.vocab_size}: allowed is the world's {needed} or more")
    if cfg.family == "gpt2" and max_len > cfg.max_positions:
        raise ValueError(
            f"max_positions={cfg.max_positions}: allowed is the world's horizon and one ({max_len}) or more"
        )
    return DecoderNetwork(cfg, action.num_actions, max_len)


@dataclass(frozen=True)
class Decoder:
    """See `SplitModel`. Outputs are the logits [..., V]."""

    net: DecoderNetwork
    params: Any
    layer: int

    @property
    def width(self) -> int:
        """D."""
        return self.net.width

    def init_carry(self, batch: int) -> tuple[Cache, Cache]:
        """Empty caches."""
        return self._cache(batch, self.layer), self._cache(batch, self.net.depth - self.layer)

    def lower(
        self, obs: jax.Array, carry: Cache | None = None, reset: jax.Array | None = None
    ) -> tuple[Cache | None, jax.Array]:
        """Tokens [n, T] → e [n, T, D]."""
        place = placed(obs.shape, reset, None if carry is None else carry.length)
        with jax.named_scope("embed"):
            x = self.params["embed"]["embedding"][obs]  # [n, T, D]
            if self.net.cfg.family == "gpt2":
                x = x + self.params["position"]["embedding"][place.position]
        return self._blocks(x, carry, place, range(self.layer))

    def upper(
        self, e: jax.Array, carry: Cache | None = None, reset: jax.Array | None = None
    ) -> tuple[Cache | None, jax.Array]:
        """e [n, T, D] → logits [n, T, V]."""
        place = placed(e.shape[:2], reset, None if carry is None else carry.length)
        carry, x = self._blocks(e, carry, place, range(self.layer, self.net.depth))
        return carry, self._logits(x)

    def lower_step(
        self, obs: jax.Array, carry: Cache, reset: jax.Array | None = None
    ) -> tuple[Cache, jax.Array]:
        """One token [n] → e [n, D]."""
        reset = None if reset is None else reset[:, None]
        after, e = self.lower(obs[:, None], carry, reset)
        assert after is not None
        return after, e[:, 0]

    def upper_step(
        self, e: jax.Array, carry: Cache, reset: jax.Array | None = None
    ) -> tuple[Cache, jax.Array]:
        """One token of e [n, D] → logits [n, V]."""
        reset = None if reset is None else reset[:, None]
        after, out = self.upper(e[:, None], carry, reset)
        assert after is not None
        return after, out[:, 0]

    def action_distribution(self, out: jax.Array) -> Distribution:
        """The next token among the world's actions."""
        return categorical(out[..., : self.net.num_actions])

    def observation_log_prob(self, out: jax.Array, next_obs: jax.Array) -> jax.Array:
        """The language-model head itself: log p of the next token in nats."""
        return categorical(out).log_prob(next_obs)

    def _cache(self, batch: int, blocks: int) -> Cache:
        cfg = self.net.cfg
        shape = (blocks, batch, self.net.max_len, cfg.kv_heads, cfg.head_size)
        return Cache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((batch,), jnp.int32))

    def _blocks(
        self, x: jax.Array, carry: Cache | None, place: "Place", which: range
    ) -> tuple[Cache | None, jax.Array]:
        keys, values = [], []
        for slot, number in enumerate(which):
            old = None if carry is None else (carry.k[slot], carry.v[slot])
            with jax.named_scope(f"block_{number}"):
                new, x = block(self.net.cfg, self.params["blocks"][str(number)], x, old, place)
            if new is not None:
                keys.append(new[0])
                values.append(new[1])
        if carry is None:
            return None, x
        if keys:
            carry = Cache(jnp.stack(keys), jnp.stack(values), place.length)
        return replace(carry, length=place.length), x  # pyright: ignore[reportReturnType]

    def _logits(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("head"):
            x = norm(self.net.cfg, self.params["final_norm"], x)
            if self.net.cfg.tied_head:
                return x @ self.params["embed"]["embedding"].T
            return x @ self.params["head"]["kernel"]


# Where tokens stand


@flax.struct.dataclass
class Place:
    """Positions of T new tokens, and which of the cached and new tokens each may attend to."""

    position: jax.Array  # [n, T] since the reset
    within: jax.Array  # [n, T, T] bool: new to new
    cached: jax.Array | None  # [n, T] bool: this token still belongs to the cached trajectory
    before: jax.Array | None  # [n] int32: tokens in the cache
    length: jax.Array  # [n] int32: tokens since the last reset, after these


def placed(shape: tuple[int, ...], reset: jax.Array | None, before: jax.Array | None) -> Place:
    """Places of [n, T] tokens after `before` [n] cached ones."""
    n, steps = shape
    time = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32), (n, steps))
    causal = time[:, :, None] >= time[:, None, :]
    start = jnp.zeros((n,), jnp.int32) if before is None else before
    if reset is None:
        position = time + start[:, None]
        kept = None if before is None else jnp.ones((n, steps), bool)
        return Place(position, causal, kept, before, position[:, -1] + 1)
    segment = jnp.cumsum(reset, axis=1, dtype=jnp.int32)  # 0 = the cached trajectory's
    first = jax.lax.cummax(jnp.where(reset, time, -1), axis=1)
    position = jnp.where(segment == 0, time + start[:, None], time - first)
    within = causal & (segment[:, :, None] == segment[:, None, :])
    kept = None if before is None else segment == 0
    return Place(position, within, kept, before, position[:, -1] + 1)


# One block


def block(
    cfg: DecoderConfig, p: Params, x: jax.Array, cache: tuple | None, place: Place
) -> tuple[tuple | None, jax.Array]:
    """x += attention(norm(x)); x += mlp(norm(x)). [n, T, D] → the cache with the new tokens, and [n, T, D]."""
    cache, mixed = attention(cfg, p["attention"], norm(cfg, p["attention_norm"], x), cache, place)
    x = x + mixed
    return cache, x + mlp(cfg, p["mlp"], norm(cfg, p["mlp_norm"], x))


def norm(cfg: DecoderConfig, p: Params, x: jax.Array) -> jax.Array:
    """LayerNorm (GPT-2) or RMSNorm over the last axis."""
    if cfg.family == "gpt2":
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(
            jnp.square(centred).mean(-1, keepdims=True) + cfg.norm_epsilon
        )
        return scaled * _as(p["scale"], x) + _as(p["bias"], x)
    inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + cfg.norm_epsilon)
    return x * inverse * _as(p["scale"], x)


def attention(
    cfg: DecoderConfig, p: Params, x: jax.Array, cache: tuple | None, place: Place
) -> tuple[tuple | None, jax.Array]:
    """Causal attention with grouped queries; the group of a query head shares one head of keys and values."""
    n, steps, _ = x.shape
    heads, groups, size = cfg.num_heads, cfg.kv_heads, cfg.head_size
    q = dense(p["query"], x).reshape(n, steps, heads, size)
    k = dense(p["key"], x).reshape(n, steps, groups, size)
    v = dense(p["value"], x).reshape(n, steps, groups, size)
    if cfg.family == "qwen3":
        q, k = norm(cfg, p["query_norm"], q), norm(cfg, p["key_norm"], k)
    if cfg.family != "gpt2":
        q, k = (rotated(y, place.position, cfg.rope_theta) for y in (q, k))
    q = q.reshape(n, steps, groups, heads // groups, size) * size**-0.5
    if cache is None:
        keys, values, allowed = k, v, place.within  # [n, T, T]
    else:
        assert place.before is not None
        assert place.cached is not None
        slots = cache[0].shape[1]
        full = jnp.arange(slots, dtype=jnp.int32)[None] < place.before[:, None]  # [n, S]
        old = place.cached[:, :, None] & full[:, None, :]  # [n, T, S]
        keys, values = (jnp.concatenate(pair, axis=1) for pair in zip(cache, (k, v), strict=True))
        allowed = jnp.concatenate([old, place.within], axis=2)
        cache = tuple(stored(c, new, place) for c, new in zip(cache, (k, v), strict=True))
    logits = jnp.einsum("ntgqd,nsgd->ngqts", q, keys)
    logits = jnp.where(allowed[:, None, None], logits, MASKED)
    mixed = jnp.einsum("ngqts,nsgd->ntgqd", jax.nn.softmax(logits, axis=-1), values)
    return cache, dense(p["out"], mixed.reshape(n, steps, heads * size))


def stored(cache: jax.Array, new: jax.Array, place: Place) -> jax.Array:
    """The cache [n, S, K, d] with new tokens [n, T, K, d] at their positions; those of trajectories that have ended
    since are forgotten."""
    slots = cache.shape[1]
    # Only the last trajectory of the row goes on: its tokens have position ≥ 0 counted from its own start.
    begins = jnp.arange(new.shape[1], dtype=jnp.int32)[None] - place.position  # [n, T]
    current = begins == begins[:, -1:]
    slot = jnp.where(
        current, place.position, slots
    )  # out of range, hence dropped, where it is over
    put = jax.vmap(lambda c, i, x: c.at[i].set(x, mode="drop"))
    return put(cache, slot, new)


def rotated(x: jax.Array, position: jax.Array, theta: float) -> jax.Array:
    """Rotary positions in Hugging Face's convention: the two halves of a head are the pairs. [n, T, H, d]."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = (position[..., None].astype(jnp.float32) * frequency[None, None])[:, :, None]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def mlp(cfg: DecoderConfig, p: Params, x: jax.Array) -> jax.Array:
    """tanh-GELU (GPT-2) or SwiGLU."""
    if cfg.family == "gpt2":
        return dense(p["down"], jax.nn.gelu(dense(p["up"], x), approximate=True))
    return dense(p["down"], jax.nn.silu(dense(p["gate"], x)) * dense(p["up"], x))


def dense(p: Params, x: jax.Array) -> jax.Array:
    """x W (+ b), W [in, out]."""
    y = x @ p["kernel"]
    return y + _as(p["bias"], y) if "bias" in p else y


def _as(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


# Fresh weights


def init(cfg: DecoderConfig, key: jax.Array) -> Params:
    """Normal weights, zero biases, norms that do nothing."""
    gpt2, width = cfg.family == "gpt2", cfg.width
    query, shared = cfg.num_heads * cfg.head_size, cfg.kv_heads * cfg.head_size
    residual = cfg.init_std / (2 * cfg.depth) ** 0.5

    def kernel(key: jax.Array, size: tuple[int, int], std: float, bias: bool) -> dict[str, Any]:
        p = {"kernel": std * jax.random.normal(key, size)}
        return p | ({"bias": jnp.zeros(size[1:])} if bias else {})

    def one_norm(size: int) -> dict[str, jax.Array]:
        return {"scale": jnp.ones((size,))} | ({"bias": jnp.zeros((size,))} if gpt2 else {})

    def one_block(key: jax.Array) -> dict[str, Any]:
        keys = jax.random.split(key, 7)
        biased = gpt2 or cfg.family == "qwen2"
        mixer = {
            "query": kernel(keys[0], (width, query), cfg.init_std, biased),
            "key": kernel(keys[1], (width, shared), cfg.init_std, biased),
            "value": kernel(keys[2], (width, shared), cfg.init_std, biased),
            "out": kernel(keys[3], (query, width), residual, gpt2),
        }
        if cfg.family == "qwen3":
            mixer |= {name: one_norm(cfg.head_size) for name in ("query_norm", "key_norm")}
        hidden = {
            "up": kernel(keys[4], (width, cfg.mlp_width), cfg.init_std, gpt2),
            "down": kernel(keys[5], (cfg.mlp_width, width), residual, gpt2),
        }
        if not gpt2:
            hidden["gate"] = kernel(keys[6], (width, cfg.mlp_width), cfg.init_std, False)
        return {
            "attention_norm": one_norm(width),
            "attention": mixer,
            "mlp_norm": one_norm(width),
            "mlp": hidden,
        }

    keys = jax.random.split(key, cfg.depth + 3)
    params: dict[str, Any] = {
        "embed": {"embedding": cfg.init_std * jax.random.normal(keys[0], (cfg.vocab_size, width))},
        "blocks": {str(i): one_block(keys[3 + i]) for i in range(cfg.depth)},
        "final_norm": one_norm(width),
    }
    if gpt2:
        table = cfg.init_std * jax.random.normal(keys[1], (cfg.max_positions, width))
        params["position"] = {"embedding": table}
    if not cfg.tied_head:
        params["head"] = kernel(keys[2], (width, cfg.vocab_size), cfg.init_std, False)
    return params
