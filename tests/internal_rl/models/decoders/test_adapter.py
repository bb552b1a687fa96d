"""A foreign model of blocks, written as gemma's are, behind the adapter."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.models.check import check_split_model
from internal_rl.models.decoders import from_blocks

TOKENS, WIDTH, HEADS, SIZE, LENGTH = 9, 8, 2, 4, 12


def init(key):
    shapes = {"embed": (TOKENS, WIDTH), "place": (LENGTH, WIDTH), "head": (WIDTH, TOKENS)}
    for i in range(2):
        shapes |= {f"{name}_{i}": (WIDTH, HEADS * SIZE) for name in ("q", "k", "v")}
        shapes |= {f"o_{i}": (HEADS * SIZE, WIDTH), f"up_{i}": (WIDTH, WIDTH)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.5 * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def make_block(i):
    def block(params, x, positions, cache, mask):
        """x [n, T, D], positions [n, T], mask [n, T, S] → cache, x. Keys are written from `end_index` on."""
        n, steps, _ = x.shape
        x = x + params["place"][positions]
        q, k, v = ((x @ params[f"{m}_{i}"]).reshape(n, steps, HEADS, SIZE) for m in "qkv")
        if cache is not None:
            put = jax.vmap(lambda c, new, at: jax.lax.dynamic_update_slice(c, new, (at, 0, 0)))
            k, v = (put(cache[m], new, cache["end_index"]) for m, new in (("k", k), ("v", v)))
            cache = {"k": k, "v": v, "end_index": cache["end_index"] + steps}
        logits = jnp.einsum("nthd,nshd->nhts", q, k)
        weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e30), axis=-1)
        mixed = jnp.einsum("nhts,nshd->nthd", weights, v).reshape(n, steps, HEADS * SIZE)
        x = x + mixed @ params[f"o_{i}"]
        return cache, x + jnp.tanh(x @ params[f"up_{i}"])

    return block


FOREIGN = from_blocks(
    embed=lambda params, tokens: params["embed"][tokens],
    blocks=[make_block(0), make_block(1)],
    final_norm=lambda params, x: x / jnp.sqrt(1e-6 + jnp.mean(x**2, axis=-1, keepdims=True)),
    head=lambda params, x: x @ params["head"],
    init_params=init,
    width=WIDTH,
    kv_shape=(HEADS, SIZE),
    max_len=LENGTH,
    num_actions=TOKENS,
)


def test_a_foreign_model_keeps_the_contract_at_every_cut():
    params = init(jax.random.key(0))
    specs = ObservationSpec(num_tokens=TOKENS), ActionSpec(num_actions=TOKENS)
    assert check_split_model(FOREIGN, params, *specs) == []


def test_a_packed_row_is_as_its_trajectories_alone():
    model = FOREIGN.bind(init(jax.random.key(0)), 1)
    tokens = jnp.asarray(np.random.default_rng(0).integers(TOKENS, size=(2, 8)), jnp.int32)
    reset = jnp.zeros((2, 8), bool).at[:, jnp.array([0, 3])].set(True)

    def logits(x, marks=None):
        return model.upper(model.lower(x, None, marks)[1], None, marks)[1]

    np.testing.assert_allclose(logits(tokens, reset)[:, 3:], logits(tokens[:, 3:]), atol=1e-5)
