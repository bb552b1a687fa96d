"""Each mixer learns, from scratch, a task that needs what it is for."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from internal_rl.config import ModelConfig, OptimizerConfig
from internal_rl.models.nn import Stack, dense
from internal_rl.stages.optim import make_optimizer

VOCABULARY, WIDTH, BATCH = 4, 32, 64


class Classifier(nnx.Module):
    def __init__(self, mixer, in_features: int, rngs: nnx.Rngs):
        cfg = ModelConfig(
            mixer=mixer,
            width=WIDTH,
            mlp_width=WIDTH,
            num_heads=2,
            head_dim=16,
            lru_width=WIDTH,
            lru_blocks=2,
            init_scale=1.0,
        )
        self.embed = dense(in_features, WIDTH, scale=1.0, rngs=rngs)
        self.stack = Stack(cfg, 1, max_len=32, rngs=rngs)
        self.head = dense(WIDTH, VOCABULARY, scale=1.0, rngs=rngs)

    def __call__(self, x):
        return self.head(self.stack(self.embed(x))[1])


def delayed_recall(key, length=16, lag=10):
    """Name the token of `lag` steps ago: (x [B, T, V], labels [B, T], which positions count)."""
    tokens = jax.random.randint(key, (BATCH, length), 0, VOCABULARY)
    counts = jnp.arange(length)[None] >= lag
    return jax.nn.one_hot(tokens, VOCABULARY), jnp.roll(tokens, lag, axis=1), counts


def last_marked(key, length=32, rate=0.12):
    """Name the latest marked token, however long ago: hold it, and let it go at the next mark."""
    key_tokens, key_marks = jax.random.split(key)
    tokens = jax.random.randint(key_tokens, (BATCH, length), 0, VOCABULARY)
    marked = jax.random.bernoulli(key_marks, rate, (BATCH, length)).at[:, 0].set(True)
    time = jnp.where(marked, jnp.arange(length)[None], 0)
    latest = jax.lax.cummax(time, axis=1)
    x = jnp.concatenate(
        [jax.nn.one_hot(tokens, VOCABULARY), marked[..., None].astype(jnp.float32)], axis=2
    )
    # Where the convolution alone could still see the mark does not count.
    counts = jnp.arange(length)[None] >= latest + 4
    return x, jnp.take_along_axis(tokens, latest, axis=1), counts


def associative_recall(key, pairs=8):
    """Eight (key, value) tokens, then one of the keys alone: name its value."""
    key_order, key_values, key_query = jax.random.split(key, 3)
    keys = jax.vmap(lambda k: jax.random.permutation(k, pairs))(jax.random.split(key_order, BATCH))
    values = jax.random.randint(key_values, (BATCH, pairs), 0, VOCABULARY)
    which = jax.random.randint(key_query, (BATCH, 1), 0, pairs)
    query, label = (jnp.take_along_axis(y, which, axis=1) for y in (keys, values))
    x = jnp.concatenate(
        [
            jax.nn.one_hot(jnp.concatenate([keys, query], 1), pairs),
            jax.nn.one_hot(jnp.concatenate([values, jnp.full_like(label, -1)], 1), VOCABULARY),
        ],
        axis=2,
    )
    counts = jnp.arange(pairs + 1)[None] == pairs
    return x, jnp.broadcast_to(label, (BATCH, pairs + 1)), counts


@pytest.mark.parametrize(
    ("mixer", "task", "features", "steps"),
    [
        ("hawk", last_marked, VOCABULARY + 1, 300),
        ("transformer", delayed_recall, VOCABULARY, 300),
        ("transformer", associative_recall, 8 + VOCABULARY, 400),
    ],
)
def test_learns(mixer, task, features, steps):
    graph, params = nnx.split(Classifier(mixer, features, nnx.Rngs(0)), nnx.Param)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3, weight_decay=0.0), steps)

    def loss_and_accuracy(params, key):
        x, labels, counts = task(key)
        logits = nnx.merge(graph, params)(x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        weight = jnp.broadcast_to(counts, labels.shape).astype(jnp.float32)
        right = (logits.argmax(-1) == labels).astype(jnp.float32)
        return (losses * weight).sum() / weight.sum(), (right * weight).sum() / weight.sum()

    def update(carry, key):
        params, state = carry
        (_, accuracy), gradients = jax.value_and_grad(loss_and_accuracy, has_aux=True)(params, key)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), accuracy

    keys = jax.random.split(jax.random.key(0), steps)
    _, accuracy = jax.jit(lambda c, k: jax.lax.scan(update, c, k))(
        (params, optimizer.init(params)), keys
    )
    assert float(accuracy[:5].mean()) < 0.5
    assert float(accuracy[-20:].mean()) > 0.95
