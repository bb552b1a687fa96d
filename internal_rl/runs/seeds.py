"""Independent seeds over several devices: the seed axis is split, and each device runs the vmapped program of its part.

Seeds never communicate, so neither do the devices. The same code serves several GPUs and the cores of a CPU, which are
devices where `internal_rl.runs.all_cores` or JAX_NUM_CPU_DEVICES says so.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from internal_rl.config import RuntimeConfig

TreeT = TypeVar("TreeT")


def seed_mesh(runtime: RuntimeConfig, seeds: int) -> Mesh:
    """The local devices that `seeds` seeds are split over: as many as divide them evenly, on a CPU at most
    `runtime.cpu_devices`."""
    devices = jax.local_devices()
    if jax.default_backend() == "cpu":
        devices = devices[: runtime.cpu_devices]
    return Mesh(np.array(devices[: largest_divisor(seeds, len(devices))]), ("seeds",))


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


def split(function: Callable, mesh: Mesh) -> Callable:
    """`function(state)` or `function(state, fed, *shared)` with every leaf of `state`, of `fed` and of the results
    [S, ...]: the same function, in which each device computes its part of the S seeds. `shared` is whole on every device.

    With one device it is `function` itself.
    """
    if mesh.size == 1:
        return function

    def on_all(state: Any, *others: Any) -> Any:
        specs = (P("seeds"), P("seeds"), *(P() for _ in others[1:]))
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=specs[: 1 + len(others)],
            out_specs=P("seeds"),
            # Loops start from constants, which the check would want marked as differing by device.
            check_vma=False,
        )(state, *others)

    return on_all


def place(tree: TreeT, mesh: Mesh, *, shared: bool = False) -> TreeT:
    """Put leaves [S, ...] where `split` wants them; or, if `shared`, all of each leaf on every device.

    A single device is named, too: arrays from a checkpoint are bound to theirs and fresh ones are not, and JAX would
    compile a program for each.
    """
    if mesh.size == 1:
        return jax.device_put(tree, mesh.devices.flat[0])
    return jax.device_put(tree, NamedSharding(mesh, P() if shared else P("seeds")))
