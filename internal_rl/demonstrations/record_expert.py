"""Write demonstrations that are generated on the device into a folder."""

import time
from pathlib import Path

import jax
import numpy as np

from envs.world import World
from internal_rl.demonstrations.contract import Batch, Demonstrations
from internal_rl.demonstrations.record import Recording
from internal_rl.demonstrations.writer import Episode, Writer
from internal_rl.errors import UserError

CHUNK = 256


def record_expert(
    source: Demonstrations,
    world: World,
    path: str | Path,
    episodes: int,
    seed: int,
    *,
    clean: bool = False,
) -> Recording:
    """Write `episodes` trajectories of `source`, whose rows hold one each, into a new folder.

    Raises:
        UserError: `path` exists, or `episodes` is below 1.
    """
    if episodes < 1:
        raise UserError(f"episodes is {episodes}; allowed is 1 or more")
    begin = time.perf_counter()
    make = jax.jit(lambda data, key: source.rows(data, key, CHUNK, clean=clean)[0])
    made_by = {"by": "record_expert", "world": repr(world), "seed": seed, "clean": clean}
    number = 0
    with Writer(path, world.obs_spec, world.action_spec, made_by) as writer:
        while writer.episodes < episodes:
            key = jax.random.fold_in(jax.random.key(seed), number)
            batch = jax.device_get(make(source.data, key))
            number += 1
            for i in range(min(CHUNK, episodes - writer.episodes)):
                writer.append(_episode(batch, i, labelled=world.num_goals > 0))
    seconds = time.perf_counter() - begin
    return Recording(writer.path, episodes, writer.steps, episodes, episodes, seconds)


def _episode(batch: Batch, i: int, labelled: bool) -> Episode:
    length = int(batch.valid[i].sum())
    task = int(batch.task[i, 0])
    return Episode(
        obs=np.concatenate([batch.obs[i, :length], batch.next_obs[i, length - 1 : length]]),
        action=batch.action[i, :length],
        goal=batch.goal[i, :length] if labelled else None,
        subgoal=batch.subgoal[i, :length] if labelled else None,
        task=task if task >= 0 else None,
    )
