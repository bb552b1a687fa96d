"""Batched episodes of a base model in an environment, under any controller of its residual stream.

One compiled loop over raw steps serves every method: the uncontrolled model, the metacontroller driven by a policy or
by its prior, and labelled controllers. It keeps all four carries (lower half, upper half, history, policy) and stops as
soon as every episode has ended. Letters: B episodes, T raw steps (the horizon), D residual stream, Z code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from agents.distributions import diagonal_gaussian
from envs import adapter
from envs.pinpad.layout import Layout
from internal_rl.base_model import BaseModel
from internal_rl.metacontroller import Metacontroller
from internal_rl.policy import AbstractPolicy
from internal_rl.world import World


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


@flax.struct.dataclass
class Episodes:
    """Recorded episodes; time first inside the loop, [B, T] for the reader. Steps after the end have alive = False."""

    alive: jax.Array
    """[B, T] bool: the episode was still running when this step began."""
    agent: jax.Array
    """[B, T] agent cell at o_t."""
    action: jax.Array
    """[B, T] int32."""
    action_log_prob: jax.Array
    """[B, T]."""
    reward: jax.Array
    """[B, T]."""
    goal: jax.Array
    """[B, T] true active sub-goal (colour)."""
    e: jax.Array
    """[B, T, D] residual stream before the control; [B, T, 0] unless asked for."""
    decision: Decision
    """Arrays [B, T, ...]."""
    layout: Layout
    task: jax.Array
    success: jax.Array
    """[B] bool."""
    progress: jax.Array
    """[B] sub-goals reached."""

    @property
    def episode_return(self) -> jax.Array:
        """Undiscounted return [B]."""
        return jnp.sum(self.reward, axis=1)


def rollout(
    key: jax.Array,
    world: World,
    base: BaseModel,
    controller: Controller,
    layout: Layout,
    task: jax.Array,
    *,
    keep_residual: bool = False,
) -> Episodes:
    """Play one episode per layout [B] until all have ended.

    Args:
        key: all randomness; step t uses fold_in(key, t).
        world: environment and tasks.
        base: bound base model.
        controller: what writes into the residual stream.
        layout: starting layouts [B].
        task: task indices [B].
        keep_residual: record e.
    """
    env, params, horizon = world.env, world.params, world.horizon
    batch = task.shape[0]
    sequences = params.tasks.sequences

    obs, env_state = jax.vmap(env.reset_to, (0, 0, None))(layout, task, params)
    lower, upper = base.init_carry(batch)

    def goal_of(env_state):
        last = sequences.shape[1] - 1
        return sequences[env_state.task, jnp.minimum(env_state.progress, last)]

    def one_step(t, obs, env_state, alive, lower, upper, control):
        key_control, key_action, key_env = jax.random.split(jax.random.fold_in(key, t), 3)
        first = jnp.full((batch,), t == 0)
        lower, e = base.lower_step(obs, lower, first)
        goal = goal_of(env_state)
        control, controlled, decision = controller.act(key_control, e, control, goal)
        upper, out = base.upper_step(controlled, upper, first)
        distribution = base.action_distribution(out)
        action = distribution.sample(seed=key_action)
        env_next, step = jax.vmap(adapter.step, (None, 0, 0, 0, None))(
            env, jax.random.split(key_env, batch), env_state, action, params
        )
        record = {
            "alive": alive,
            "agent": env_state.agent,
            "action": action,
            "action_log_prob": distribution.log_prob(action),
            "reward": jnp.where(alive, step.reward, 0.0),
            "goal": goal,
            "e": e if keep_residual else e[:, :0],
            "decision": decision,
        }
        keep = lambda new, old: jnp.where(_expand(alive, new), new, old)  # noqa: E731
        env_state = jax.tree.map(keep, env_next, env_state)
        alive = alive & ~(step.terminated | step.truncated)
        return record, step.obs, env_state, alive, lower, upper, control

    def body(loop):
        t, record_so_far, state = loop
        record, *state = one_step(t, *state)
        record_so_far = jax.tree.map(
            lambda buffer, value: buffer.at[t].set(value), record_so_far, record
        )
        return t + 1, record_so_far, tuple(state)

    alive = jnp.ones((batch,), bool)
    state = (obs, env_state, alive, lower, upper, controller.init(batch))
    shapes = jax.eval_shape(lambda s: one_step(jnp.int32(0), *s)[0], state)
    buffers = jax.tree.map(lambda s: jnp.zeros((horizon, *s.shape), s.dtype), shapes)
    _, record, state = jax.lax.while_loop(
        lambda loop: (loop[0] < horizon) & jnp.any(loop[2][2]),
        body,
        (jnp.int32(0), buffers, state),
    )
    record = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), record)
    final = state[1]
    return Episodes(
        layout=layout,
        task=task,
        success=final.progress >= params.tasks.lengths[task],
        progress=final.progress,
        **record,
    )


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
        carry = jax.tree.map(lambda n, o: jnp.where(_expand(switch, n), n, o), moved, carry)
        z = jnp.where(switch[:, None], proposal, z)
        decision = Decision(
            switch=switch, gate=gate, z=z, log_prob=jnp.where(switch, log_prob, 0.0)
        )
        history = meta.history_step(e, history)
        state = (jnp.zeros_like(first), z, history, carry)
        return state, meta.decoder.control(e, z), decision

    return Controller(init=init, act=act)


def _expand(mask: jax.Array, like: jax.Array) -> jax.Array:
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))
