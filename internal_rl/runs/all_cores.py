"""Importing this makes every CPU core a device of JAX, for `runtime.cpu_devices` to choose from.

For programs' first import, not for libraries: it concerns the whole process, and comes too late once anything was
computed, which importing gymnax does. JAX_NUM_CPU_DEVICES and XLA_FLAGS in the environment have precedence.
"""

import os
import warnings

import jax

_FLAG = "xla_force_host_platform_device_count"

_unset = jax.config.jax_num_cpu_devices == -1  # pyright: ignore[reportAttributeAccessIssue]
if _unset and _FLAG not in os.environ.get("XLA_FLAGS", ""):
    try:
        # Two at least: presets ask for two, and give the same numbers on a single core.
        jax.config.update("jax_num_cpu_devices", max(2, os.cpu_count() or 1))
    except RuntimeError:
        warnings.warn("JAX has started: seeds are split over the devices there are", stacklevel=2)
