"""Rows of recorded episodes: on the device, inside the compiled step, or read by the host where there is too much of it.

Every row comes from episodes drawn uniformly, with replacement:

- `clean`: one episode per row, its first `horizon` steps, padded on the right;
- else, of an episode longer than `horizon`, a window of `horizon` steps that lies uniformly in it and whose first token
  counts as a reset; with `packing` several episodes share a row.

A padding token is some step of an episode, so that it is a legal observation and action; `valid` is False there.

Letters: E episodes, N steps, R rows, L = horizon, O observation, A action.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.world import ActionSpec, ObservationSpec, World
from internal_rl.demonstrations.contract import Batch
from internal_rl.demonstrations.disk import LABELS
from internal_rl.demonstrations.flat import (
    Flat,
    batch_of,
    host_pack,
    host_unpacked,
    read_windows,
)
from internal_rl.demonstrations.folder import Folder, open_folder
from internal_rl.demonstrations.packing import pack, unpacked
from internal_rl.demonstrations.values import Statistics
from internal_rl.errors import UserError

DEVICE_BYTES = 2**30
"""Up to this many bytes, recorded data goes onto the device if nothing else is said."""


@dataclass(frozen=True)
class _Settings:
    """What two sets of recorded episodes are compared and hashed by."""

    source: str
    """Folder, or where else they come from."""
    digest: str
    """SHA-256 of the data."""
    horizon: int
    packing: bool
    obs_spec: ObservationSpec
    action_spec: ActionSpec
    num_goals: int
    """Goals are -1 or below this; 0: unlabelled."""
    episodes: int
    mean_length: float
    """Of an episode, cut to `horizon`."""
    std_length: float
    obs_statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = field(compare=False)
    """Mean and standard deviation per observation number, over all observations; where a number is constant, 1 instead of
    the deviation. None unless observations are real numbers."""
    arrays: Flat = field(compare=False, repr=False)

    def _draws(self, rows: int, clean: bool) -> int:
        """Episodes for this many rows."""
        if clean or not self.packing:
            return rows
        # n episodes hold n·mean ± √n·std tokens; two standard deviations more than it takes, so that few rows stay empty.
        needed = rows * self.horizon / self.mean_length
        return math.ceil(needed + 2.0 * self.std_length / self.mean_length * math.sqrt(needed))


class Recorded(_Settings):
    """Recorded episodes on the device; see `Demonstrations`."""

    @property
    def data(self) -> Flat:
        """The episodes."""
        return self.arrays

    def rows(
        self, data: Flat, key: jax.Array, count: int, *, clean: bool
    ) -> tuple[Batch, dict[str, jax.Array]]:
        """Rows of `horizon` tokens. No metrics."""
        key_episode, key_window = jax.random.split(key)
        draws = self._draws(count, clean)
        episode = jax.random.randint(key_episode, (draws,), 0, self.episodes)
        length = data.starts[episode + 1] - data.starts[episode]
        kept = jnp.minimum(length, self.horizon)
        if clean:
            first = jnp.zeros_like(episode)
        else:
            first = jax.random.randint(key_window, (draws,), 0, length - kept + 1)
        packed = self.packing and not clean
        layout = pack(kept, count, self.horizon) if packed else unpacked(kept, self.horizon)
        return batch_of(data, episode, first, kept, layout, self.obs_spec), {}


class HostRecorded(_Settings):
    """Recorded episodes that stay on disk, read through memory maps; see `HostDemonstrations`."""

    def host_rows(self, seed: int, step: int, count: int, *, clean: bool) -> Batch:
        """NumPy rows of `horizon` tokens, distributed as those of `Recorded`."""
        rng = np.random.default_rng([seed, step, int(clean)])
        episode = rng.integers(self.episodes, size=self._draws(count, clean))
        length = self.arrays.starts[episode + 1] - self.arrays.starts[episode]
        kept = np.minimum(length, self.horizon)
        first = rng.integers(length - kept + 1)
        if clean:
            first = np.zeros_like(first)
        packed = self.packing and not clean
        layout = (
            host_pack(kept, count, self.horizon) if packed else host_unpacked(kept, self.horizon)
        )
        read, place = read_windows(self.arrays, episode, first, kept)
        return batch_of(read, place, np.zeros_like(first), kept, layout, self.obs_spec)


def open_recorded(
    path: str | Path,
    world: World | tuple[ObservationSpec, ActionSpec],
    *,
    horizon: int | None = None,
    packing: bool = False,
    on_device: bool | None = None,
    device_bytes: int = DEVICE_BYTES,
    verify: bool = True,
) -> Recorded | HostRecorded:
    """Open a folder made by `internal-rl data` for a world.

    Args:
        world: the world that the demonstrations are of, or what one observation and one action must be. If it numbers no
            goals, goal and sub-goal labels are left out.
        horizon: L; None: the world's.
        packing: rows that are not clean hold several episodes.
        on_device: True: `Recorded`; False: `HostRecorded`; None: by size.
        device_bytes: for None, the largest size that goes onto the device.
        verify: compare checksums, which reads everything once.

    Raises:
        UserError: `open_folder` refuses the folder, or it does not fit the world.
    """
    folder = open_folder(path, verify)
    if isinstance(world, tuple):
        obs_spec, action_spec = world
        num_goals = folder.manifest["num_goals"]
        if horizon is None:
            raise UserError("horizon is None; allowed without a world: a number of steps")
    else:
        obs_spec, action_spec, num_goals = world.obs_spec, world.action_spec, world.num_goals
        horizon = world.horizon if horizon is None else horizon
    problems = misfits(folder, obs_spec, action_spec, num_goals)
    if problems:
        raise UserError(f"{path}: {problems[0]}")
    _check_horizon(horizon)
    labels = [name for name in LABELS if name in folder.arrays and (num_goals or name == "task")]
    arrays = Flat(**{name: folder.arrays[name] for name in ("obs", "action", "starts", *labels)})
    size = sum(array.nbytes for array in jax.tree.leaves(arrays))
    if on_device is None:
        on_device = size <= device_bytes
    statistics = folder.statistics if obs_spec.is_real else None
    settings = {
        "source": str(path),
        "digest": folder.digest,
        "horizon": horizon,
        "packing": packing,
        "obs_spec": obs_spec,
        "action_spec": action_spec,
        "num_goals": num_goals,
        "obs_statistics": statistics and without_constants(statistics),
    }
    return (on_the_device if on_device else _on_the_host)(arrays, settings)


def misfits(
    folder: Folder, obs_spec: ObservationSpec, action_spec: ActionSpec, num_goals: int
) -> list[str]:
    """Where a folder does not fit a world, one line each. `num_goals` 0: its goals do not matter."""
    lines = []
    if folder.obs_spec != obs_spec:
        lines.append(
            f"one observation is {describe(folder.obs_spec)}; the world's is {describe(obs_spec)}"
        )
    mine, its = folder.action_spec, action_spec
    if (mine.num_actions, mine.dim) != (its.num_actions, its.dim):
        lines.append(f"one action is {describe(mine)}; the world's is {describe(its)}")
    elif its.dim:
        least, most = folder.manifest["action_range"]
        # Bounds as the float32 that a recorded action at the bound is.
        if least < np.float32(its.low) or most > np.float32(its.high):
            lines.append(
                f"actions reach from {least} to {most}; the world's may be {its.low} to {its.high}"
            )
    goals = folder.manifest["num_goals"]
    if num_goals and goals > num_goals:
        lines.append(f"goals go up to {goals - 1}; the world's go up to {num_goals - 1}")
    return lines


def describe(spec: ObservationSpec | ActionSpec) -> str:
    """A specification in a few words."""
    if isinstance(spec, ActionSpec):
        if spec.num_actions:
            return f"one of {spec.num_actions} alternatives"
        return f"{spec.dim} real numbers"
    if spec.num_tokens:
        return f"one of {spec.num_tokens} tokens"
    if spec.factor_sizes:
        sizes = ", ".join(str(size) for size in spec.factor_sizes)
        return f"{spec.dim} numbers in one-hot blocks of {sizes}"
    return f"{spec.dim} real numbers"


def without_constants(
    statistics: Statistics,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that can be divided by: numbers that vary by less than a millionth of themselves, which
    float32 can hardly tell, count as constant and get 1."""
    std = tuple(
        s if s > 1e-6 * max(1.0, abs(m)) else 1.0
        for m, s in zip(statistics.mean, statistics.std, strict=True)
    )
    return statistics.mean, std


def on_the_device(arrays: Flat, settings: dict[str, Any]) -> Recorded:
    """Copy arrays of the host onto the device. `settings`: the fields of `Recorded` that cannot be counted."""
    rows = len(arrays.obs)
    if rows >= 2**31:
        raise UserError(f"on_device is True for {rows} observations; allowed: fewer than 2**31")
    moved = jax.tree.map(jnp.asarray, replace(arrays, starts=arrays.starts.astype(np.int32)))
    return Recorded(**settings, **_counts(arrays, settings["horizon"]), arrays=moved)


def _on_the_host(arrays: Flat, settings: dict[str, Any]) -> HostRecorded:
    # The offsets are read all the time and small.
    kept = replace(arrays, starts=np.array(arrays.starts))
    return HostRecorded(**settings, **_counts(arrays, settings["horizon"]), arrays=kept)


def _counts(arrays: Flat, horizon: int) -> dict[str, Any]:
    kept = np.minimum(np.diff(arrays.starts), horizon)
    return {
        "episodes": len(kept),
        "mean_length": float(kept.mean()),
        "std_length": float(kept.std()),
    }


def _check_horizon(horizon: int) -> None:
    if horizon < 1:
        raise UserError(f"horizon is {horizon}; allowed is 1 or more")
