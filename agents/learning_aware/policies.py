"""Policies as values: four functions, so that tabular and recurrent ones run through the same programs.

Letters: B chains, L steps, A actions, O observations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

Params = Any
Carry = Any


@dataclass(frozen=True)
class Policy:
    """A policy (with or without a critic) over compact observations.

    Attributes:
        init: key → parameters.
        init_carry: number of chains B → state before the first step of a history.
        step: (parameters, obs [B, ...], carry) → carry, logits [B, A], values [B].
        parallel: (parameters, obs [B, L, ...], reset [B, L] bool or None) → logits [B, L, A], values [B, L], the same
            numbers as `step`. `reset` marks first steps of a history.
        context: longest history in steps, 0 if it may have any length.
    """

    init: Callable[[jax.Array], Params]
    init_carry: Callable[[int], Carry]
    step: Callable[[Params, jax.Array, Carry], tuple[Carry, jax.Array, jax.Array]]
    parallel: Callable[[Params, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]
    context: int = 0


def tabular(
    num_observations: int,
    num_actions: int,
    *,
    initial_logit: float = 0.0,
    noise: float = 0.0,
    value_scale: float = 0.0,
) -> Policy:
    """Stationary memory-1 table: A − 1 free logits per observation, the last action's is 0; for A = 2, P(C) = σ(logit).

    Args:
        initial_logit, noise: logits start at N(initial_logit, noise²).
        value_scale: 0 for a policy without critic (values are 0); else values are this times a trained table.
    """
    if num_observations < 1:
        raise ValueError(
            f"num_observations is {num_observations}; allowed with a tabular policy: at least 1 (a matrix game)"
        )

    def init(key: jax.Array) -> Params:
        shape = (num_observations, num_actions - 1)
        logits = initial_logit + noise * jax.random.normal(key, shape)
        params = {"logits": logits}
        return params | {"values": jnp.zeros((num_observations,))} if value_scale else params

    def lookup(params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = _with_zero(_rows(params["logits"], obs))
        if value_scale:
            return logits, value_scale * _rows(params["values"][:, None], obs)[..., 0]
        return logits, jnp.zeros(obs.shape, logits.dtype)

    def step(params: Params, obs: Int[Array, " B"], carry: Carry):
        return carry, *lookup(params, obs)

    def parallel(params: Params, obs: Int[Array, "B L"], reset: Shaped[Array, "B L"] | None):
        del reset
        return lookup(params, obs)

    return Policy(init=init, init_carry=lambda _: (), step=step, parallel=parallel)


def tabular_by_episode(
    num_observations: int,
    num_actions: int,
    inner_length: int,
    inner_episodes: int,
    *,
    initial_logit: float = 0.0,
    noise: float = 0.0,
) -> Policy:
    """One table per inner episode, so it can play the co-player's learning; its history is the step count.

    Its context is M·T steps.
    """
    context = inner_length * inner_episodes

    def init(key: jax.Array) -> Params:
        shape = (inner_episodes, num_observations, num_actions - 1)
        return {"logits": initial_logit + noise * jax.random.normal(key, shape)}

    def step(params: Params, obs: Int[Array, " B"], carry: Int[Array, ""]):
        table = jax.lax.dynamic_index_in_dim(
            params["logits"], carry // inner_length, keepdims=False
        )
        logits = _with_zero(_rows(table, obs))
        return carry + 1, logits, jnp.zeros(obs.shape, logits.dtype)

    def parallel(params: Params, obs: Int[Array, "B L"], reset: Shaped[Array, "B L"] | None):
        if reset is not None:
            raise ValueError("reset is given; allowed for tables by episode: None (one history)")
        inner = jnp.swapaxes(obs.reshape(obs.shape[0], -1, inner_length), 0, 1)  # [M, B, T]
        free = jax.vmap(_rows)(params["logits"][: inner.shape[0]], inner)
        logits = _with_zero(jnp.swapaxes(free, 0, 1).reshape(*obs.shape, num_actions - 1))
        return logits, jnp.zeros(obs.shape, logits.dtype)

    return Policy(
        init=init,
        # All chains are at the same step.
        init_carry=lambda batch: jnp.zeros((), jnp.int32),
        step=step,
        parallel=parallel,
        context=context,
    )


def random_tables(num_observations: int, chains: int) -> Policy:
    """One memory-1 table for each of the B chains, P(C | o) ~ U(0, 1): co-players of two actions that never learn.

    Args:
        chains: B; `step` and `parallel` allow no other number.
    """

    def init(key: jax.Array) -> Params:
        shape = (chains, num_observations)
        p = jax.random.uniform(key, shape, minval=1e-6, maxval=1 - 1e-6)
        return {"logits": jnp.log(p) - jnp.log1p(-p)}

    def parallel(params: Params, obs: Int[Array, "B L"], reset: Shaped[Array, "B L"] | None):
        del reset
        chosen = jax.nn.one_hot(obs, num_observations) * params["logits"][:, None, :]
        logits = _with_zero(jnp.sum(chosen, axis=-1, keepdims=True))
        return logits, jnp.zeros(obs.shape, logits.dtype)

    def step(params: Params, obs: Int[Array, " B"], carry: Carry):
        logits, values = parallel(params, obs[:, None], None)
        return carry, logits[:, 0], values[:, 0]

    return Policy(init=init, init_carry=lambda _: (), step=step, parallel=parallel)


def _rows(table: Float[Array, "O a"], obs: Int[Array, "*b"]) -> Float[Array, "*b a"]:
    """table[obs] as a one-hot product: its gradient is no scatter, which CPUs do slowly."""
    return jax.nn.one_hot(obs, table.shape[0], dtype=table.dtype) @ table


def _with_zero(free: Float[Array, "*b a"]) -> Float[Array, "*b A"]:
    """Logits of all actions: the free ones, and 0 for the last action."""
    return jnp.concatenate([free, jnp.zeros_like(free[..., :1])], axis=-1)


def log_prob(logits: Float[Array, "*b A"], action: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """log π(a), without a gather (see `tabular`)."""
    chosen = jax.nn.one_hot(action, logits.shape[-1], dtype=logits.dtype)
    return jnp.sum(jax.nn.log_softmax(logits, axis=-1) * chosen, axis=-1)


def sample(uniform: Float[Array, "*b"], logits: Float[Array, "*b A"]) -> Int[Array, "*b"]:
    """Actions by inverse transform of uniform numbers, which can be drawn for a whole episode at once."""
    if logits.shape[-1] == 2:  # by far the most frequent case, and four times faster
        return (uniform >= jax.nn.sigmoid(logits[..., 0] - logits[..., 1])).astype(jnp.int32)
    below = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)[..., :-1]
    return jnp.sum(uniform[..., None] >= below, axis=-1, dtype=jnp.int32)
