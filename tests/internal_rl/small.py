"""The smoke preset and networks of its size with random weights.

Initial weights have zero biases and a policy head that is almost zero, which hides mistakes;
`noisy` gives every parameter a value that matters.
"""

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import configs
from internal_rl import build
from internal_rl.config import Config
from internal_rl.models.base_model import BaseModel
from internal_rl.models.metacontroller import Metacontroller
from internal_rl.models.parts import Models
from internal_rl.models.policy import AbstractPolicy

PRESET = configs.get("gridworld-smoke")
# Tasks of one colour, which random behaviour solves now and then, so that rewards are not all zero.
SMOKE = dataclasses.replace(PRESET, env=dataclasses.replace(PRESET.env, heldout_tasks=("0", "3")))


def changed(config: Config, **fields: Any) -> Config:
    """`changed(config, model={"depth": 3}, seed=1)` with nested fields replaced."""

    def replace(value: Any, change: Any) -> Any:
        if not isinstance(change, dict):
            return change
        new = {name: replace(getattr(value, name), part) for name, part in change.items()}
        return dataclasses.replace(value, **new)

    return replace(config, fields)


def world(config: Config = SMOKE) -> Any:
    """World of the pretraining tasks; gridworld-pinpad, which has more than the contract asks for."""
    return build.pretrain_world(config.env)


def heldout(config: Config = SMOKE) -> Any:
    """World of the held-out tasks, likewise."""
    return build.heldout_world(config.env)


def models(config: Config = SMOKE) -> Models:
    """All networks; none depends on the task set."""
    return build.models(config, world(config))


def expert(config: Config = SMOKE, *, clean: bool = True) -> Any:
    """Demonstrations of the pretraining tasks, the clean ones with discovery's way of breaking ties."""
    ties = config.discover.tie_breaking
    return build.demonstrations(config, world(config), clean=clean, tie_breaking=ties)


def noisy(params: Any, seed: int = 1, scale: float = 0.3) -> Any:
    """Every leaf plus noise."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    new = [np.asarray(x) + scale * rng.standard_normal(x.shape) for x in leaves]
    return jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in new])


@cache
def base_params(config: Config = SMOKE) -> Any:
    """Random weights of a base model."""
    return _init(models(config).base)


@cache
def meta_params(config: Config = SMOKE) -> Any:
    """Random weights of a metacontroller."""
    return _init(models(config).meta)


@cache
def policy_params(config: Config = SMOKE) -> Any:
    """Random weights of an abstract-action policy."""
    return _init(models(config).policy, scale=0.1)


def bind_base(params: Any, config: Config = SMOKE) -> BaseModel:
    return models(config).bind_base(params)


def bind_meta(params: Any, config: Config = SMOKE) -> Metacontroller:
    return models(config).bind_meta(params)


def bind_policy(params: Any, config: Config = SMOKE) -> AbstractPolicy:
    return models(config).bind_policy(params)


def normal(seed: int, *shape: int) -> jax.Array:
    """Standard normal numbers, made without compiling anything."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_trees_equal(actual: Any, expected: Any) -> None:
    """Same structure, every leaf the same bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


assert_close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def all_equations(jaxpr: Any) -> list:
    """Equations of a jaxpr and of everything inside it (loops, conditionals, jitted calls)."""
    found = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found.append(equation)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
                found += all_equations(value)
    return found


def _init(net: Any, scale: float = 0.3) -> Any:
    # A test may ask for weights inside a function that is being traced, and the caches outlive it.
    with jax.ensure_compile_time_eval():
        return noisy(jax.jit(net.init)(jax.random.key(0)), scale=scale)
