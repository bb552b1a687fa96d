"""Batches of expert behaviour as token rows, generated on the device.

Letters: R rows, L tokens per row, O observation size.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from envs.pinpad.expert import TieBreaking, Trajectories, generate
from envs.pinpad.layout import apply_symmetry
from internal_rl.packing import Packing, pack, unpacked
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
    view: jax.Array | None = None
    """o_t of the same trajectories in turned or mirrored grids [R, L, O], for the encoder; None if it sees o_t itself."""

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
    key: jax.Array,
    world: World,
    rows: int,
    epsilon: float,
    tie_breaking: TieBreaking,
    *,
    symmetric_views: bool = False,
) -> tuple[Batch, dict[str, jax.Array]]:
    """One trajectory per row of `world.horizon` tokens. `symmetric_views` fills in `Batch.view`."""
    data, stats = generate(
        key,
        world.env,
        world.tasks,
        rows,
        world.horizon,
        epsilon=epsilon,
        tie_breaking=tie_breaking,
    )
    packing = unpacked(data.length, world.horizon)
    batch = gather_rows(world, data, packing)
    if symmetric_views:
        # Folded in, so that the trajectories are those of a batch without views.
        element = jax.random.randint(jax.random.fold_in(key, 1), (rows,), 0, 8)
        batch = dataclasses.replace(batch, view=symmetric_view(world, data, packing, element))
    return batch, stats


def symmetric_view(
    world: World, trajectories: Trajectories, packing: Packing, element: jax.Array
) -> jax.Array:
    """o_t [R, L, O] of the same rows, the grid of trajectory n moved by the symmetry `element[n]`."""
    i, t = packing.trajectory, packing.time

    def move(cells: jax.Array) -> jax.Array:
        elements = element[i].reshape(i.shape + (1,) * (cells.ndim - i.ndim))
        return apply_symmetry(cells, elements, world.env.grid_size)

    return world.env.observe(
        move(trajectories.objects[i]),
        move(trajectories.walls[i]),
        move(trajectories.agent[i, t]),
    )


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x over True entries of mask (same shape); 0 if there are none."""
    weight = mask.astype(x.dtype)
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)
