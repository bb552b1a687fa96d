"""One training run of any family: make or reopen its directory, start, train, mark it as done.

A family describes its run as a `Job`; the four stages of internal RL, `credit` and `social` all go through `train`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from internal_rl.errors import UserError
from internal_rl.runs import loop, run_dir
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.lock import writer
from internal_rl.runs.own_files import check_unchanged, fingerprints
from internal_rl.runs.run_dir import RunDir, check_parents


@dataclass(frozen=True)
class Program:
    """What is computed; see `loop.run` for the fields of that name."""

    init: Callable[..., Any]
    """key, then the parts of `start` that belong to a seed → state of one seed."""
    update: Callable[..., tuple[Any, Mapping[str, Any]]]
    total_steps: int
    headline: str
    title: str = ""
    """Shown in the progress bar; default: the stage."""
    start: tuple = ()
    """States with a leading seed axis that `init` starts from, e.g. a parent run's agents."""
    frozen: Any = None
    feed: Callable[[int], Any] | None = None
    prepare: Callable[[Any], Any] | None = None
    """What is done to the states before the first step, outside of the loop: state → state."""
    extra_metrics: Callable[[Any], Mapping[str, Any]] | None = None
    check: Callable[[Mapping[str, Any]], str | None] | None = None


@dataclass(frozen=True)
class Job:
    """A run to be."""

    stage: str
    config: Any
    """As asked for; a resumed run goes on with the one that it recorded."""
    program: Callable[[Any, RunDir, int], Program]
    """(config, run, seeds) → what is computed."""
    check: Callable[[Any], None]
    """Raises `UserError` for a config that cannot run, before anything is made or overwritten."""
    own_files: Callable[[Any], Iterable[str]] = lambda config: ()
    """The user's objects that a config names."""
    parents: Mapping[str, RunDir] = field(default_factory=dict)
    parent_seed: int = 0


def train(
    job: Job,
    path: Path,
    *,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Train `job` in `path` to the end.

    Args:
        path: the run directory to make, or with `resume` to go on in.
        seeds: independent ones, trained at once; a state then has a leading seed axis.
        resume: from the newest checkpoint, or from the start if there is none yet.
        overwrite: replace an existing run.
        progress: show a progress bar.

    Raises:
        UserError: see `Job.check`, `run_dir.create`, `run_dir.open_run`, `loop.run`; or another process writes there.
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; allowed: at least 1")
    if resume:
        run = run_dir.open_run(path, job.stage)
        check_unchanged(run)
        check_parents(run)
        config, seeds = run.load_config(type(job.config)), run.info["num_seeds"]
    else:
        job.check(job.config)
        config = job.config
        run = run_dir.create(
            path,
            job.stage,
            config,
            overwrite=overwrite,
            parents=job.parents,
            parent_seed=job.parent_seed,
            num_seeds=seeds,
            own_files=fingerprints(job.own_files(config)),
        )
    with writer(run.path):
        program = job.program(config, run, seeds)
        state = initial(program.init, config.seed, seeds, *program.start)
        # Whatever is made before the loop is made again unless a checkpoint holds it.
        if program.prepare is not None and Checkpoints(run).latest_step() is None:
            state = program.prepare(state)
        loop.run(
            program.title or job.stage,
            state,
            program.update,
            total_steps=program.total_steps,
            runtime=config.runtime,
            run=run,
            headline=program.headline,
            seeds_axis=seeds > 1,
            frozen=program.frozen,
            feed=program.feed,
            extra_metrics=program.extra_metrics,
            check=program.check,
            resume=resume,
            progress=progress,
        )
    return run


def initial(init: Callable[..., Any], seed: int, seeds: int, *start: Any) -> Any:
    """State of one seed, or of several along a leading axis [S]. Jitted: op by op it would take seconds.

    Args:
        init: key, parts of `start` → state.
        start: states with leading axes of at least S; seed s gets their parts s.
    """
    key = jax.random.key(seed)
    if seeds == 1:
        return jax.jit(init)(key, *(jax.tree.map(lambda x: x[0], s) for s in start))
    parts = (jax.tree.map(lambda x: x[:seeds], s) for s in start)
    return jax.jit(jax.vmap(init))(jax.random.split(key, seeds), *parts)


def shapes(init: Callable[..., Any], seed: int, seeds: int, *start: Any) -> Any:
    """Shapes of `initial`'s result, without computing it."""
    return jax.eval_shape(lambda *s: initial(init, seed, seeds, *s), *start)
