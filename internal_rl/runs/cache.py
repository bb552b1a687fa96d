"""JAX's persistent compilation cache, and a counter that proves when nothing was compiled."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_HIT_EVENT = "/jax/compilation_cache/cache_hits"
_MISS_EVENT = "/jax/compilation_cache/cache_misses"


def enable_compilation_cache() -> Path | None:
    """Keep compiled programs on disk, so that the second start of a stage does not compile.

    The folder is `$INTERNAL_RL_CACHE`, else `internal-rl` in the user's cache folder (XDG); in it,
    one folder per kind of processor, because a CPU program may use instructions that another
    processor lacks. Returns the folder, or None when it cannot be written, in which case nothing is
    cached.
    """
    chosen = os.environ.get("INTERNAL_RL_CACHE")
    if chosen:
        root = Path(chosen).expanduser()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "internal-rl"
    folder = root / "jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default only programs that took a second to compile are kept; a stage has many small ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


@dataclass
class Compilations:
    """What was compiled since the counter was opened."""

    programs: int = 0
    """Programs handed to the compiler, those that the persistent cache answered included."""
    cache_hits: int = 0
    """Programs read from the persistent cache."""
    cache_misses: int = 0
    """Programs compiled and written to the persistent cache."""


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Count compilations inside the `with` block, in this process."""
    counts = Compilations()

    def on_duration(event: str, duration_secs: float, **_: Any) -> None:
        del duration_secs
        counts.programs += event == _COMPILE_EVENT

    def on_event(event: str, **_: Any) -> None:
        counts.cache_hits += event == _HIT_EVENT
        counts.cache_misses += event == _MISS_EVENT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)


def _processor() -> str:
    """A short name for this kind of processor, the same on equal machines."""
    description = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        description += "".join(sorted({x for x in lines if x.startswith(("model name", "flags"))}))
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:8]}"
