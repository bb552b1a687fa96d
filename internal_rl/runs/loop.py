"""The host side of every training stage: compile one chunk of updates, run it again and again, log
and save between.

A stage is `update(state) -> (state, metrics)`. One chunk is a `lax.scan` of `log_every` updates in
one compiled program with the metrics reduced inside, so nothing leaves the device, and nothing is
compiled, between two logs.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from internal_rl.config import RuntimeConfig
from internal_rl.errors import UserError
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.logger import Logger, drop_after, read_lines
from internal_rl.runs.run_dir import RunDir
from internal_rl.runs.seeds import place, seed_mesh, split

StateT = TypeVar("StateT")
_PLAIN_LOG_SECONDS = 30.0  # between two progress lines where stderr is no terminal


def run(
    stage_name: str,
    state: StateT,
    update: Callable[..., tuple[StateT, Mapping[str, Any]]],
    *,
    total_steps: int,
    runtime: RuntimeConfig,
    run: RunDir,
    headline: str,
    seeds_axis: bool = False,
    frozen: Any = None,
    feed: Callable[[int], Any] | None = None,
    extra_metrics: Callable[[StateT], Mapping[str, Any]] | None = None,
    check: Callable[[Mapping[str, Any]], str | None] | None = None,
    resume: bool = False,
    tensorboard: bool = True,
    progress: bool = True,
) -> StateT:
    """Train until `state.step == total_steps`, then mark the run as done.

    Args:
        stage_name: shown in the progress bar and in errors.
        state: pytree of arrays with an int32 field `step`, which `update` increments by one. It is
            copied, so the caller's arrays stay valid. With `resume` it serves as the template of
            the restored state.
        update: one step of one seed: `update(state)`, or `update(state, frozen)` if `frozen` is
            given; returns the new state and scalar metrics. Float and bool metrics are averaged
            over a chunk; integer metrics are counts and are summed, as float.
        total_steps, runtime: `total_steps` and `checkpoint_every` must be multiples of `log_every`,
            because a shorter last chunk would be a second program.
        run: where metrics, events and checkpoints go.
        headline: the metric shown in the progress bar; training stops when it is not finite.
        seeds_axis: every leaf of `state` has a leading seed axis [S], and `update`, written for one
            seed, is vmapped here; metrics are then [S]. `frozen` is shared by the seeds. The axis is
            split over the local devices (`seeds.seed_mesh`).
        frozen: pytree that `update` reads but never changes, e.g. the weights of the base model. It
            is an argument of the compiled program, neither a constant in it nor part of the
            checkpoints.
        feed: arrays [log_every, ...] (with seeds [log_every, S, ...]) of the chunk that begins after step n, for data
        that do
            not fit on the device; `update(state, frozen, fed)` then gets one entry per step.
        extra_metrics: called between chunks with the state; its numbers join the metrics line. They
            must follow from the state alone.
        check: what is wrong with the numbers of a metrics line, if anything; training then stops.
        resume: go on from the newest checkpoint of `run`, if there is one. Log lines written after
            it are dropped.
        tensorboard: see `Logger`.
        progress: show a progress bar, or a line every 30 s where stderr is no terminal.

    Returns:
        The final state.

    Raises:
        UserError: step counts do not fit, the checkpoint is unusable, the headline metric is not
            finite, or `check` found something.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the state has been saved and the message says how to
            go on.
    """
    check_steps(f"{stage_name} steps", total_steps, runtime)
    checkpoints = Checkpoints(run, runtime.keep_checkpoints)
    resumed = resume and checkpoints.latest_step() is not None
    if resumed:
        _, state = checkpoints.restore_latest(state)
    step = _step(state)
    for file in (run.metrics_file, run.timing_file):
        drop_after(file, step)
    if step >= total_steps:
        run.set_status("done")
        return state
    mesh = seed_mesh(runtime, jax.tree.leaves(state)[0].shape[0] if seeds_axis else 1)
    # Donated from here on, hence the copy.
    state = jax.tree.map(jnp.copy, place(_strong_types(state), mesh))
    arguments = () if frozen is None else (place(frozen, mesh, shared=True),)
    clock = _Clock(timing_totals(run)["wall_seconds"])
    bar = _Progress(stage_name, step, total_steps, enabled=progress)
    with (
        contextlib.closing(checkpoints),
        Logger(
            run,
            tensorboard=tensorboard,
            wandb=runtime.wandb or None,
            resume_step=step if resumed else None,
        ) as logger,
        _interruptible() as interrupted,
        contextlib.closing(bar),
    ):
        bar.compiling()
        started = time.perf_counter()
        fed = None if feed is None else place_fed(feed(step), mesh, seeds_axis)
        chunk = _compile_chunk(update, state, fed, arguments, runtime.log_every, seeds_axis, mesh)
        seconds = time.perf_counter() - started
        logger.timing(step, {"compile_seconds": seconds, "devices": mesh.size})
        clock.start()
        bar.start()
        while step < total_steps and not interrupted:
            chunk_started = time.perf_counter()
            state, metrics = chunk(state, fed, *arguments)
            if (
                feed is not None and step + runtime.log_every < total_steps
            ):  # while the device computes
                fed = place_fed(feed(step + runtime.log_every), mesh, seeds_axis)
            metrics = jax.device_get(metrics)  # the one host sync of a chunk
            seconds = time.perf_counter() - chunk_started
            step += runtime.log_every
            if extra_metrics is not None:
                metrics |= jax.device_get(dict(extra_metrics(state)))
            logger.metrics(step, metrics)
            _check_finite(stage_name, headline, metrics, step)
            wrong = None if check is None else check(metrics)
            if wrong is not None:
                raise UserError(f"{stage_name}: step {step}: {wrong}; no checkpoint of it was kept")
            if step % runtime.checkpoint_every == 0 or step >= total_steps:
                checkpoints.save(step, state)
            logger.timing(step, {"seconds": seconds, "wall_seconds": clock.seconds()})
            bar.update(step, float(np.mean(metrics[headline])), headline)
        if step < total_steps:
            if checkpoints.latest_step() != step:
                checkpoints.save(step, state)
            raise KeyboardInterrupt(
                f"{stage_name}: stopped and saved at step {step} of {total_steps} in {run.path}; "
                "--resume goes on from there"
            )
    run.set_status("done")
    return state


def check_steps(name: str, total_steps: int, runtime: RuntimeConfig) -> None:
    """Raise `UserError` unless steps (the field `name`) and checkpoints fall on the ends of chunks, and
    there is a device to compute on."""
    if runtime.cpu_devices < 1:
        raise UserError(f"runtime.cpu_devices is {runtime.cpu_devices}; allowed: at least 1")
    if runtime.log_every < 1:
        raise UserError(f"runtime.log_every is {runtime.log_every}; allowed: at least 1")
    fields = {name: total_steps, "runtime.checkpoint_every": runtime.checkpoint_every}
    for field, value in fields.items():
        if value < 1 or value % runtime.log_every:
            raise UserError(
                f"{field} is {value}; "
                f"allowed: a positive multiple of runtime.log_every ({runtime.log_every})"
            )


def timing_totals(run: RunDir) -> dict[str, float]:
    """Seconds spent in the loop: `wall_seconds` (without compiling, over all resumptions) and
    `compile_seconds`."""
    lines = read_lines(run.timing_file)
    return {
        "wall_seconds": max((line.get("wall_seconds", 0.0) for line in lines), default=0.0),
        "compile_seconds": sum(line.get("compile_seconds", 0.0) for line in lines),
    }


def _compile_chunk(
    update: Callable,
    state: Any,
    fed: Any,
    arguments: tuple,
    length: int,
    seeds_axis: bool,
    mesh: Mesh,
) -> Callable:
    """Compile `length` updates ahead of time: a later call cannot trigger another compilation, only
    fail."""
    if seeds_axis:
        axes = (0, *(None for _ in arguments), *(() if fed is None else (0,)))
        update = jax.vmap(update, in_axes=axes)

    def chunk(state, fed, *arguments):
        def one(state, batch):
            state, metrics = update(state, *arguments, *(() if batch is None else (batch,)))
            return _strong_types(state), {k: _as_metric(k, v) for k, v in metrics.items()}

        if (
            seeds_axis
        ):  # steps first for the scan; the seed axis comes first only where devices split it
            fed = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), fed)
        state, metrics = jax.lax.scan(one, state, fed, length=length)
        return state, {name: _reduce(values) for name, values in metrics.items()}

    def _as_metric(name, value):
        value = jnp.asarray(value)
        if value.ndim != int(seeds_axis):
            raise ValueError(f"metric {name} has shape {value.shape}; metrics are scalars")
        return value

    program = jax.jit(split(chunk, mesh), donate_argnums=0)
    return program.lower(state, fed, *arguments).compile()


def place_fed(fed: Any, mesh: Mesh, seeds_axis: bool) -> Any:
    """Arrays [steps, ...], or [steps, S, ...] with the seed axis moved to the front, where the compiled chunk wants
    them."""
    if seeds_axis:
        fed = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), fed)
    return place(fed, mesh)


def _reduce(values: jax.Array) -> jax.Array:
    """[n, ...] → float32[...]: sum of counts, mean of everything else."""
    as_float = values.astype(jnp.float32)
    is_count = jnp.issubdtype(values.dtype, jnp.integer)
    return as_float.sum(0) if is_count else as_float.mean(0)


def _strong_types(tree: Any) -> Any:
    # A Python number in the state is weakly typed on the first call only, which would be a
    # different program.
    return jax.tree.map(
        lambda x: (
            x
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else jax.lax.convert_element_type(x, x.dtype)
        ),
        jax.tree.map(lambda x: x if isinstance(x, jax.Array) else jnp.asarray(x), tree),
    )


def _step(state: Any) -> int:
    return int(np.asarray(jax.device_get(state.step)).reshape(-1)[0])


def _check_finite(stage_name: str, headline: str, metrics: Mapping[str, Any], step: int) -> None:
    if headline not in metrics:
        raise ValueError(f"{stage_name} reports no metric '{headline}'; it has {sorted(metrics)}")
    bad = np.flatnonzero(~np.isfinite(np.atleast_1d(metrics[headline])))
    if bad.size:
        seeds = f" (seeds {bad.tolist()})" if np.ndim(metrics[headline]) else ""
        raise UserError(
            f"{stage_name}: {headline} is not finite at step {step}{seeds}; "
            "no checkpoint of it was kept: lower the learning rate or set grad_clip"
        )


class _Clock:
    """Seconds since `start`, added to those of earlier sittings of the same run."""

    def __init__(self, past: float):
        self._past = past
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return self._past + time.perf_counter() - self._started


class _Progress:
    """A tqdm bar with the headline metric, steps/s and time left; plain lines where stderr is no
    terminal."""

    def __init__(self, name: str, step: int, total: int, *, enabled: bool):
        self._plain = enabled and not sys.stderr.isatty()
        self._name, self._total, self._first = name, total, step
        self._started = self._printed = time.perf_counter()
        self._bar = tqdm(
            total=total, initial=step, desc=name, unit="step", disable=not enabled or self._plain
        )

    def compiling(self) -> None:
        """Say what the wait is for."""
        self._bar.set_postfix_str("compiling")
        if self._plain:
            print(f"{self._name}: compiling", file=sys.stderr, flush=True)

    def start(self) -> None:
        """Rates count from here."""
        self._started = time.perf_counter()
        self._bar.unpause()

    def update(self, step: int, value: float, headline: str) -> None:
        self._bar.set_postfix_str(f"{headline} {value:.4g}", refresh=False)
        self._bar.update(step - self._bar.n)
        now = time.perf_counter()
        if self._plain and (now - self._printed > _PLAIN_LOG_SECONDS or step == self._total):
            self._printed = now
            rate = (step - self._first) / max(now - self._started, 1e-9)
            left = (self._total - step) / rate
            line = f"{self._name}: step {step}/{self._total}, {headline} {value:.4g}"
            print(f"{line}, {rate:.3g} steps/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into an entry of the yielded list; a second one acts at once.

    An exception in the middle of a chunk would lose the donated state, so the loop looks at the
    list between chunks.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _: Any) -> None:
        received.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()
