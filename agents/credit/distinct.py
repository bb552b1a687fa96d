"""Networks evaluated once for each distinct input of a batch.

Episodes of one batch often show the same observations: in key-to-door they differ in the key and in what
lies in the last cell, so eight have three sequences at most. On the CPU these functions therefore loop
over distinct inputs, as many times as there are; elsewhere they take the whole batch at once, since an
accelerator has nothing to gain from fewer but later steps. Results are the same up to rounding.

Vmapped seeds loop one after the other (`one_at_a_time`); what surrounds these functions is vmapped as usual.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from agents.credit.model import one_at_a_time
from agents.credit.networks import Params, apply_gradient


@dataclass(frozen=True)
class Separable:
    """A function that treats each outcome alone, so that a batch shares outcomes as well as observations.

    Its inputs are a tuple of arrays, and a loss has one array of weights.

    Attributes:
        inputs: axis of each input along which outcomes lie, None where they share it; some of either.
        output: that axis of what the function returns, or of the weights of a loss.
    """

    inputs: tuple[int | None, ...]
    output: int


def evaluate_distinct(
    function: Callable[[Params, Any], Array], separable: Separable | None = None
) -> Callable[[Params, Any], Array]:
    """`function(params, inputs)`, whose vmap over inputs alone evaluates equal ones once.

    Not differentiable where it is vmapped; see `distinct_value_and_grad`.

    Args:
        separable: then equal outcomes of equal inputs are evaluated once.
    """
    if jax.default_backend() != "cpu":
        return function
    once = jax.custom_batching.custom_vmap(function)

    @one_at_a_time
    def each(params: Params, inputs: Any) -> Array:
        keys, take = _entries(inputs, separable)
        place = jnp.zeros(_count(keys), jnp.int32)
        shape = jax.eval_shape(lambda: function(params, take(0)))
        found = jnp.zeros((*place.shape, *shape.shape), shape.dtype)

        def fill(carry: Any, index: Array, same: Array) -> Any:
            found, place, done = carry
            found = found.at[done].set(function(params, take(index)))
            return found, jnp.where(same, done, place), done + 1

        found, place, _ = _for_each_distinct(keys, (found, place, jnp.int32(0)), fill)
        found = found[place]
        return _join(found, _count(inputs), separable.output) if separable else found

    @once.def_vmap
    def rule(size: int, batched: Any, params: Params, inputs: Any) -> tuple[Array, bool]:
        inputs = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x[None], (size, *x.shape)), inputs, batched[1]
        )
        if any(jax.tree.leaves(batched[0])):
            return jax.vmap(function, ((jax.tree.map(_axis, batched[0])), 0))(params, inputs), True
        return each(params, inputs), True

    return once


def distinct_value_and_grad(
    loss: Callable[[Params, Any, Any], Any],
    params: Params,
    inputs: Any,
    weights: Any,
    has_aux: bool = False,
    separable: Separable | None = None,
) -> tuple[Any, Params]:
    """Value and gradient, with respect to the parameters, of Σ_i loss(params, inputs[i], weights[i]).

    Args:
        loss: additive in `weights`: for equal inputs, that of their sum is the sum of theirs.
        inputs, weights: arrays or trees of them, with a leading axis [B].
        has_aux: the loss returns (value, something else that is additive in `weights`), both summed.
        separable: the loss is a sum over outcomes.
    """
    if jax.default_backend() != "cpu":

        def total(params: Params) -> Any:
            found = jax.vmap(loss, (None, 0, 0))(params, inputs, weights)
            return jax.tree.map(lambda x: jnp.sum(x, axis=0), found)

        return jax.value_and_grad(total, has_aux=has_aux)(params)

    gradient = jax.value_and_grad(loss, has_aux=has_aux)

    @one_at_a_time
    def each(params: Params, inputs: Any, weights: Any) -> tuple[Any, Params]:
        keys, take = _entries(inputs, separable)
        if separable:
            weights = _columns(weights, separable.output)

        def add(total: Any, index: Array, same: Array) -> Any:
            merged = jax.tree.map(lambda w: jnp.tensordot(same.astype(w.dtype), w, axes=1), weights)
            return jax.tree.map(jnp.add, total, gradient(params, take(index), merged))

        first = jax.tree.map(lambda w: w[0], weights)
        shapes = jax.eval_shape(lambda: gradient(params, take(0), first))
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return _for_each_distinct(keys, start, add)

    return each(params, inputs, weights)


def distinct_fit_step(
    optimizer: optax.GradientTransformation,
    loss: Callable[[Params, Any, Any], Array],
    state: Any,
    inputs: Any,
    weights: Any,
    separable: Separable | None = None,
) -> tuple[Any, Array]:
    """`networks.fit_step` on the sum of `distinct_value_and_grad`, for a state (params, optimiser state)."""
    params, opt_state = state
    value, gradient = distinct_value_and_grad(loss, params, inputs, weights, separable=separable)
    return apply_gradient(optimizer, params, opt_state, gradient), value


def _for_each_distinct(
    keys: Any, carry: Any, body: Callable[[Any, Array, Bool[Array, " B"]], Any]
) -> Any:
    """`carry = body(carry, index, same)` for the first entry of every distinct key; `same` marks those with
    the same key."""

    def step(state: tuple[Array, Any]) -> tuple[Array, Any]:
        left, carry = state
        index = jnp.argmax(left)
        key = jax.tree.map(lambda x: x[index], keys)
        # Entries that are not numbers differ from themselves, and must not be left for ever.
        same = (jnp.arange(left.shape[0]) == index) | (left & _equal(keys, key))
        return left & ~same, body(carry, index, same)

    left = jnp.ones(_count(keys), bool)
    return jax.lax.while_loop(lambda state: jnp.any(state[0]), step, (left, carry))[1]


def _entries(inputs: Any, separable: Separable | None) -> tuple[Any, Callable[[int | Array], Any]]:
    """Keys of the entries to evaluate, and index -> one entry: B inputs, or, of separable functions, B × K
    inputs with one outcome each.

    Their keys are numbers: to compare all inputs with each distinct one would cost more than a small network.
    """
    if separable is None:
        return inputs, lambda index: jax.tree.map(lambda x: x[index], inputs)
    paired = tuple(zip(inputs, separable.inputs, strict=True))
    # Inputs that outcomes share are not repeated for each: the copies would cost more than the network.
    paired = tuple((x if axis is None else _columns(x, axis), axis) for x, axis in paired)
    own = tuple(x for x, axis in paired if axis is not None)
    shared = tuple(x for x, axis in paired if axis is None)
    outcomes = _count(own) // _count(shared)

    def take(index: int | Array) -> Any:
        return tuple(x[index // outcomes if axis is None else index] for x, axis in paired)

    return (jnp.repeat(_numbers(shared), outcomes), _numbers(own)), take


def _count(inputs: Any) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _numbers(inputs: Any) -> Int[Array, " B"]:
    """One number for each entry, the same for equal ones."""
    number = jnp.zeros(_count(inputs), int)
    return _for_each_distinct(
        inputs, number, lambda number, index, same: jnp.where(same, index, number)
    )


def _columns(x: Array, axis: int) -> Array:
    """[B, ..., K, ...], with outcomes along the axis of an entry, to [B K, ..., 1, ...]."""
    single = jnp.expand_dims(jnp.moveaxis(x, axis + 1, 1), axis + 2)
    return single.reshape(-1, *single.shape[2:])


def _join(found: Array, size: int, axis: int) -> Array:
    """Inverse of `_columns`."""
    found = jnp.squeeze(found, axis + 1)
    return jnp.moveaxis(found.reshape(size, -1, *found.shape[1:]), 1, axis + 1)


def _equal(inputs: Any, one: Any) -> Bool[Array, " B"]:
    same = [
        jnp.all(x == y[None], axis=tuple(range(1, x.ndim)))
        for x, y in zip(jax.tree.leaves(inputs), jax.tree.leaves(one), strict=True)
    ]
    return jnp.all(jnp.stack(same), axis=0)


def _axis(batched: bool) -> int | None:
    return 0 if batched else None
