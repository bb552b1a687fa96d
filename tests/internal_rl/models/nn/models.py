"""Every sequence model on the contract, tiny, with random parameters, behind jitted functions.

Data are NumPy arrays and calls share their shapes, since compilation is most of these tests' time.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from internal_rl.config import ModelConfig
from internal_rl.models.nn import GRUHistory, Stack

WIDTH = 8
CONFIG = ModelConfig(
    width=WIDTH,
    mlp_width=12,
    num_heads=2,
    head_dim=4,
    num_buckets=4,
    max_distance=8,
    lru_width=12,
    lru_blocks=3,
    init_scale=1.0,
)
# The window makes the attention forget inside the test sequences.
NAMES = ("transformer", "window", "hawk", "hawk-tree", "gru")


class Model(NamedTuple):
    """A model split into a static graph and parameters; `call` and `step` take the latter first."""

    params: Any
    call: Callable
    step: Callable
    init_carry: Callable
    merge: Callable


def make_module(name: str, rngs: nnx.Rngs) -> nnx.Module:
    if name == "gru":
        return GRUHistory(WIDTH, 6, rngs)
    if name.startswith("hawk"):
        cfg = dataclasses.replace(CONFIG, mixer="hawk")
        stack = Stack(cfg, 1, max_len=1, rngs=rngs)
        for block in stack.blocks:
            block.mixer.scan_method = "tree" if name == "hawk-tree" else "loop"
        return stack
    return Stack(CONFIG, 1, max_len=5 if name == "window" else 32, rngs=rngs)


@cache
def make_model(name: str, dtype: str = "float32") -> Model:
    """Parameters are their initial values plus noise, so that no bias or norm scale is trivial."""
    module = make_module(name, nnx.Rngs(0))
    graph, params = nnx.split(module, nnx.Param)
    leaves, tree = jax.tree.flatten(params)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    rng = np.random.default_rng(1)
    noisy = [
        jnp.asarray(np.asarray(leaf) + 0.3 * rng.standard_normal(leaf.shape), dtype)
        for leaf in leaves
    ]

    def merge(params) -> Any:
        return nnx.merge(graph, params)

    return Model(
        jax.tree.unflatten(tree, noisy),
        jax.jit(lambda params, *args: merge(params)(*args)),
        jax.jit(lambda params, *args: merge(params).step(*args)),
        lambda batch: module.init_carry((batch,), jnp.dtype(dtype)),
        merge,
    )


def inputs(seed: int, batch: int, length: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, length, WIDTH)).astype(dtype)


def warm_carry(model: Model, batch: int, length: int, dtype: str = "float32") -> Any:
    """A carry after `length` random tokens."""
    x, no_reset = inputs(99, batch, length, dtype), np.zeros((batch, length), bool)
    return model.call(model.params, x, model.init_carry(batch), no_reset)[0]


def run_steps(model: Model, x, carry, reset=None) -> tuple[Any, np.ndarray]:
    """The sequence one token at a time: (carry, y [B, T, D])."""
    reset = np.zeros(x.shape[:2], bool) if reset is None else reset
    outputs = []
    for t in range(x.shape[1]):
        carry, y = model.step(model.params, x[:, t], carry, reset[:, t])
        outputs.append(y)
    return carry, np.stack(outputs, axis=1)


def assert_trees_close(actual, expected, atol: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
