"""Batched episodes of a base model in any world, under any controller of its residual stream.

One compiled loop over raw steps serves every method: the uncontrolled model, the metacontroller driven by a policy or
by its prior, and labelled controllers. It keeps all four carries (lower half, upper half, history, policy) and stops as
soon as every episode has ended. Letters: B episodes, T raw steps (the horizon), D residual stream, Z code.
"""

from collections.abc import Collection
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from envs.world import World
from internal_rl.models.contract import SplitModel
from internal_rl.play.controllers import Controller, Decision, expand

RECORDS = ("e", "obs", "state")
"""What a rollout records when asked."""


@flax.struct.dataclass
class Episodes:
    """Recorded episodes; time first inside the loop, [B, T] for the reader. Steps after the end have alive = False."""

    alive: jax.Array
    """[B, T] bool: the episode was still running when this step began."""
    action: jax.Array
    """[B, T, *A] as sampled; the world got `action_spec.executed` of it."""
    action_log_prob: jax.Array
    """[B, T]."""
    reward: jax.Array
    """[B, T]."""
    goal: jax.Array
    """[B, T] true active sub-goal, -1 where unknown."""
    decision: Decision
    """Arrays [B, T, ...]."""
    start: Any
    """Where the episodes started, [B, ...]."""
    success: jax.Array
    """[B] bool."""
    progress: jax.Array
    """[B] sub-goals reached."""
    e: jax.Array | None = None
    """[B, T, D] residual stream before the control, if kept."""
    obs: jax.Array | None = None
    """[B, T, *O] o_t, if kept."""
    state: Any = None
    """States of the world before every step, [B, T, ...], if kept."""
    final_state: Any = None
    """States after the last step, [B, ...], if states are kept."""

    @property
    def episode_return(self) -> jax.Array:
        """Undiscounted return [B]."""
        return jnp.sum(self.reward, axis=1)


def rollout(
    key: jax.Array,
    world: World,
    base: SplitModel,
    controller: Controller,
    start: Any,
    *,
    keep: Collection[str] = (),
) -> Episodes:
    """Play one episode per start [B] until all have ended.

    Args:
        key: all randomness; step t uses fold_in(key, t).
        world: environment and tasks.
        base: bound base model.
        controller: what writes into the residual stream.
        start: starts [B] (`world.starts`).
        keep: what to record besides, of `RECORDS`.

    Raises:
        ValueError: an unknown name in `keep`.
    """
    if not set(keep) <= set(RECORDS):
        raise ValueError(f"keep={tuple(keep)}: allowed are {', '.join(RECORDS)}")
    horizon = world.horizon
    batch = jax.tree.leaves(start)[0].shape[0]
    world_state, first_step = jax.vmap(world.reset)(start)
    lower, upper = base.init_carry(batch)

    def one_step(t, obs, world_state, alive, lower, upper, control):
        key_control, key_action, key_env = jax.random.split(jax.random.fold_in(key, t), 3)
        first = jnp.full((batch,), t == 0)
        lower, e = base.lower_step(obs, lower, first)
        goal = jax.vmap(world.goal)(world_state)
        control, controlled, decision = controller.act(key_control, e, control, goal)
        upper, out = base.upper_step(controlled, upper, first)
        distribution = base.action_distribution(out)
        action = distribution.sample(seed=key_action)
        world_next, step = jax.vmap(world.step)(
            jax.random.split(key_env, batch), world_state, world.action_spec.executed(action)
        )
        record = {
            "alive": alive,
            "action": action,
            "action_log_prob": distribution.log_prob(action),
            "reward": jnp.where(alive, step.reward, 0.0),
            "goal": goal,
            "decision": decision,
        }
        kept = {"e": e, "obs": obs, "state": world_state}
        record |= {name: kept[name] for name in keep}
        # An episode that has ended stays where it is.
        hold = lambda new, old: jnp.where(expand(alive, new), new, old)  # noqa: E731
        world_state = jax.tree.map(hold, world_next, world_state)
        obs = hold(step.obs, obs)
        alive = alive & ~(step.terminated | step.truncated)
        return record, obs, world_state, alive, lower, upper, control

    def body(loop):
        t, record_so_far, state = loop
        record, *state = one_step(t, *state)
        record_so_far = jax.tree.map(
            lambda buffer, value: buffer.at[t].set(value), record_so_far, record
        )
        return t + 1, record_so_far, tuple(state)

    alive = jnp.ones((batch,), bool)
    state = (first_step.obs, world_state, alive, lower, upper, controller.init(batch))
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
        start=start,
        final_state=final if "state" in keep else None,
        **jax.vmap(world.outcome)(final),
        **record,
    )
