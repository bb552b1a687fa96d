"""What may write into the residual stream during play: nothing, or codes from the prior or a policy.

Labelled controllers and replayed codes are controllers, too (`internal_rl.analysis`). Letters: B episodes, D residual
stream, Z code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from agents.distributions import diagonal_gaussian
from internal_rl.models.metacontroller import Metacontroller
from internal_rl.models.policy import AbstractPolicy


@flax.struct.dataclass
class Decision:
    """What a controller did at one raw step."""

    switch: jax.Array
    """[B] bool: a new code was chosen here."""
    gate: jax.Array
    """[B] β_t before thresholding."""
    z: jax.Array
    """[B, Z] the code in force."""
    log_prob: jax.Array
    """[B] log-density of the code where `switch`, else 0."""


@dataclass(frozen=True)
class Controller:
    """A controller as a pair of functions.

    init(batch) → state;  act(key, e [B, D], state, goal [B]) → state, ê [B, D], Decision.
    `goal` is the true active sub-goal, which only labelled controllers read.
    """

    init: Callable[[int], Any]
    act: Callable[[jax.Array, jax.Array, Any, jax.Array], tuple[Any, jax.Array, Decision]]


def uncontrolled(code_dim: int = 0) -> Controller:
    """The base model by itself (raw actions)."""

    def act(key, e, state, goal):
        del key, goal
        batch = e.shape[0]
        none = Decision(
            switch=jnp.zeros((batch,), bool),
            gate=jnp.zeros((batch,)),
            z=jnp.zeros((batch, code_dim)),
            log_prob=jnp.zeros((batch,)),
        )
        return state, e, none

    return Controller(init=lambda batch: (), act=act)


@dataclass(frozen=True)
class CodeSampler:
    """Where codes come from at a switch: init(batch) → carry; sample(key, e, carry) → carry, z [B, Z], log_prob [B]."""

    init: Callable[[int], Any]
    sample: Callable[[jax.Array, jax.Array, Any], tuple[Any, jax.Array, jax.Array]]


def prior_sampler(code_dim: int) -> CodeSampler:
    """z ~ N(0, I)."""

    def sample(key, e, carry):
        z = jax.random.normal(key, (e.shape[0], code_dim))
        return carry, z, diagonal_gaussian(jnp.zeros_like(z), jnp.zeros_like(z)).log_prob(z)

    return CodeSampler(init=lambda batch: (), sample=sample)


def policy_sampler(policy: AbstractPolicy, *, greedy: bool = False) -> CodeSampler:
    """z ~ π(z | e), or its mean."""

    def sample(key, e, carry):
        carry, (mean, log_std) = policy.step(e, carry)
        distribution = diagonal_gaussian(mean, log_std)
        z = mean if greedy else distribution.sample(seed=key)
        return carry, z, distribution.log_prob(z)

    return CodeSampler(init=policy.init_carry, sample=sample)


def abstract_controller(
    meta: Metacontroller, sampler: CodeSampler, switch_threshold: float
) -> Controller:
    """Algorithm 1 of the paper over a batch: a new code where β_t ≥ threshold, the old one elsewhere.

    The sampler's carry moves only at switches. The first step switches always, since no code is there before it;
    with `forced_switching` (ablation) every step does.
    """

    def init(batch):
        z = jnp.zeros((batch, meta.cfg.code_dim))
        return jnp.ones((batch,), bool), z, meta.init_history(batch), sampler.init(batch)

    def act(key, e, state, goal):
        del goal
        first, z, history, carry = state
        gate = meta.switch_probability(e, history, z)
        gate = jnp.where(first | meta.cfg.forced_switching, 1.0, gate)
        switch = gate >= switch_threshold
        moved, proposal, log_prob = sampler.sample(key, e, carry)
        carry = jax.tree.map(lambda n, o: jnp.where(expand(switch, n), n, o), moved, carry)
        z = jnp.where(switch[:, None], proposal, z)
        decision = Decision(
            switch=switch, gate=gate, z=z, log_prob=jnp.where(switch, log_prob, 0.0)
        )
        history = meta.history_step(e, history)
        state = (jnp.zeros_like(first), z, history, carry)
        return state, meta.decoder.control(e, z), decision

    return Controller(init=init, act=act)


def expand(mask: jax.Array, like: jax.Array) -> jax.Array:
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))
