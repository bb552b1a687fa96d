"""Batches of expert behaviour as token rows, generated on the device.

Letters: R rows, L tokens per row, O observation size.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from envs.pinpad.expert import TieBreaking, Trajectories, generate
from internal_rl.config import DiscoverConfig
from internal_rl.packing import Packing, pack, unpacked
from internal_rl.views import EncoderView, encoder_view
from internal_rl.world import World


@flax.struct.dataclass
class Batch:
    """Token rows; all arrays start with [R, L]."""

    obs: jax.Array
    """o_t [R, L, O]."""
    next_obs: jax.Array
    """o_{t+1} [R, L, O]."""
    action: jax.Array
    """Expert action, int32."""
    goal: jax.Array
    """True active sub-goal (colour), int32."""
    subgoal: jax.Array
    """Its index in the task, int32."""
    reset: jax.Array
    """First token of a trajectory."""
    valid: jax.Array
    """False on padding."""
    task: jax.Array
    """Index of the task the trajectory follows, int32."""
    view: EncoderView | None = None
    """What the encoder of discovery reads; None if it reads the rows themselves."""

    @property
    def goal_change(self) -> jax.Array:
        """[R, L] bool: the sub-goal index differs from the step before, the first step excluded."""
        before = jnp.pad(self.subgoal[:, :-1], ((0, 0), (1, 0)))
        return (self.subgoal != before) & self.valid & ~self.reset


def gather_rows(world: World, trajectories: Trajectories, packing: Packing) -> Batch:
    """Token rows of these trajectories, laid out by `packing`."""
    i, t = packing.trajectory, packing.time
    objects, walls = trajectories.objects[i], trajectories.walls[i]
    return Batch(
        obs=world.env.observe(objects, walls, trajectories.agent[i, t]),
        next_obs=world.env.observe(objects, walls, trajectories.agent[i, t + 1]),
        action=trajectories.action[i, t],
        goal=trajectories.goal[i, t],
        subgoal=trajectories.subgoal[i, t],
        reset=packing.reset,
        valid=packing.valid,
        task=trajectories.task[i],
    )


def packed_batch(
    key: jax.Array, world: World, rows: int, trajectories: int, epsilon: float
) -> tuple[Batch, dict[str, jax.Array]]:
    """Rows of `world.horizon` tokens, each holding several of the generated trajectories."""
    data, stats = generate(
        key, world.env, world.tasks, trajectories, world.horizon, epsilon=epsilon
    )
    return gather_rows(world, data, pack(data.length, rows, world.horizon)), stats


def padded_batch(
    key: jax.Array, world: World, rows: int, epsilon: float, tie_breaking: TieBreaking
) -> tuple[Batch, dict[str, jax.Array]]:
    """One trajectory per row of `world.horizon` tokens."""
    data, stats = _padded(key, world, rows, epsilon, tie_breaking)
    return gather_rows(world, data, unpacked(data.length, world.horizon)), stats


def discovery_batch(
    key: jax.Array,
    world: World,
    rows: int,
    cfg: DiscoverConfig,
    tie_breaking: TieBreaking | None = None,
) -> Batch:
    """Trajectories of D*, one per row of `world.horizon` tokens, with the views that the encoder reads.

    `tie_breaking` replaces `cfg.tie_breaking`.
    """
    data, _ = _padded(key, world, rows, 0.0, tie_breaking or cfg.tie_breaking)
    # Folded in, so that the trajectories are the same whatever the encoder reads.
    view = encoder_view(jax.random.fold_in(key, 1), world, data, cfg)
    batch = gather_rows(world, data, unpacked(data.length, world.horizon))
    return dataclasses.replace(batch, view=view)


def _padded(
    key: jax.Array, world: World, rows: int, epsilon: float, tie_breaking: TieBreaking
) -> tuple[Trajectories, dict[str, jax.Array]]:
    return generate(
        key,
        world.env,
        world.tasks,
        rows,
        world.horizon,
        epsilon=epsilon,
        tie_breaking=tie_breaking,
    )


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x over True entries of mask (same shape); 0 if there are none."""
    weight = mask.astype(x.dtype)
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)
