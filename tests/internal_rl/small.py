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
from internal_rl.models.base_model import BaseModel
from internal_rl.config import Config
from internal_rl.models.metacontroller import Metacontroller
from internal_rl.models.networks import base_network, metacontroller_network, policy_network
from internal_rl.models.policy import AbstractPolicy
from internal_rl.world import World, pretrain_world

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


def world(config: Config = SMOKE) -> World:
    """World of the pretraining tasks."""
    return pretrain_world(config.env)


def noisy(params: Any, seed: int = 1, scale: float = 0.3) -> Any:
    """Every leaf plus noise."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    new = [np.asarray(x) + scale * rng.standard_normal(x.shape) for x in leaves]
    return jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in new])


@cache
def base_params(config: Config = SMOKE) -> Any:
    """Random weights of a base model."""
    net = base_network(config, world(config).obs_spec, world(config).action_spec)
    return _init(net)


@cache
def meta_params(config: Config = SMOKE) -> Any:
    """Random weights of a metacontroller."""
    return _init(metacontroller_network(config))


@cache
def policy_params(config: Config = SMOKE) -> Any:
    """Random weights of an abstract-action policy."""
    return _init(policy_network(config), scale=0.1)


def bind_base(params: Any, config: Config = SMOKE) -> BaseModel:
    return base_network(config, world(config).obs_spec, world(config).action_spec).bind(params)


def bind_meta(params: Any, config: Config = SMOKE) -> Metacontroller:
    return metacontroller_network(config).bind(params)


def bind_policy(params: Any, config: Config = SMOKE) -> AbstractPolicy:
    return policy_network(config).bind(params)


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
