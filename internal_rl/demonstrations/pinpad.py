"""Demonstrations of gridworld-pinpad: the shortest-path expert, generated on the device, a fresh batch for every step."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from envs.pinpad.expert import TieBreaking, Trajectories, generate
from envs.pinpad.world import PinpadWorld
from internal_rl.demonstrations.contract import Batch
from internal_rl.demonstrations.packing import Packing, pack, unpacked


@dataclass(frozen=True)
class PinpadDemonstrations:
    """See `Demonstrations`.

    Args:
        world: pinpad with the pretraining tasks.
        epsilon: noise of the behaviour that is not clean.
        packing: rows of it hold several trajectories.
        tie_breaking: of the clean behaviour, how the expert chooses among equally short paths.
        mean_length: steps of a trajectory, from `mean_length`; only packing needs it.
    """

    world: PinpadWorld
    epsilon: float = 0.0
    packing: bool = False
    tie_breaking: TieBreaking = "uniform"
    mean_length: float = 0.0

    @property
    def data(self) -> tuple:
        """Nothing is stored."""
        return ()

    def rows(
        self, data: Any, key: jax.Array, count: int, *, clean: bool
    ) -> tuple[Batch, dict[str, jax.Array]]:
        """Rows of `world.horizon` tokens. Metric: `solvable_fraction` of the proposed layouts."""
        del data
        world, horizon = self.world, self.world.horizon
        packed = self.packing and not clean
        made, stats = generate(
            key,
            world.env,
            world.tasks,
            math.ceil(count * horizon / self.mean_length) if packed else count,
            horizon,
            epsilon=0.0 if clean else self.epsilon,
            tie_breaking=self.tie_breaking if clean else "uniform",
        )
        if packed:
            layout, source = pack(made.length, count, horizon), None
        else:
            layout, source = unpacked(made.length, horizon), made
        batch = gather_rows(world, made, layout, source)
        return batch, {"solvable_fraction": stats["solvable_fraction"]}


def mean_length(world: PinpadWorld, epsilon: float) -> float:
    """Mean steps of a trajectory, from a sample with a fixed key."""
    sample, _ = jax.jit(
        lambda key: generate(key, world.env, world.tasks, 512, world.horizon, epsilon=epsilon)
    )(jax.random.key(0))
    return float(jnp.mean(sample.length.astype(jnp.float32)))


def gather_rows(
    world: PinpadWorld,
    trajectories: Trajectories,
    packing: Packing,
    source: Trajectories | None = None,
) -> Batch:
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
        source=source,
    )
