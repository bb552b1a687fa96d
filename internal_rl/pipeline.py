"""The stages as whole runs: directories in, directories out. The CLI, the demo and the tests all go through here.

Each `run_*` validates, makes (or reopens) the run directory, trains to the end and returns the directory. A state has a
leading seed axis only if the run has several seeds.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.networks import Params, base_network
from internal_rl.runs import loop, run_dir
from internal_rl.runs.checkpoint import Checkpoints, export_params, import_params
from internal_rl.runs.config_io import config_to_json
from internal_rl.runs.run_dir import RunDir
from internal_rl.stages import contest, discover, pretrain, reinforce, reinforce_credit
from internal_rl.validate import validate
from internal_rl.world import pretrain_world

STAGES = ("pretrain", "discover", "reinforce")


def run_pretrain(
    config: Config,
    path: Path,
    *,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Stage 1 in `path`."""
    run, config, seeds = _open("pretrain", config, path, {}, 0, seeds, resume, overwrite)
    state = _init(lambda key: pretrain.init(config, key), config.seed, seeds)
    loop.run(
        "pretrain",
        state,
        pretrain.make_update(config),
        total_steps=config.pretrain.steps,
        runtime=config.runtime,
        run=run,
        headline="action_nll",
        seeds_axis=seeds > 1,
        resume=resume,
        progress=progress,
    )
    return run


def run_discover(
    config: Config,
    path: Path,
    base: RunDir,
    *,
    base_seed: int = 0,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Stage 2 in `path`, on the base model of `base`."""
    parents = {"pretrain": base}
    run, config, seeds = _open(
        "discover", config, path, parents, base_seed, seeds, resume, overwrite
    )
    base_params = load_base(run.parent("pretrain"), parent_seed_of(run))
    state = _init(lambda key: discover.init(config, key, base_params), config.seed, seeds)
    loop.run(
        "discover",
        state,
        discover.make_update(config),
        total_steps=config.discover.steps,
        runtime=config.runtime,
        run=run,
        headline="loss",
        seeds_axis=seeds > 1,
        frozen=base_params,
        resume=resume,
        progress=progress,
    )
    return run


def run_reinforce(
    config: Config,
    path: Path,
    parent: RunDir,
    *,
    parent_seed: int = 0,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Stage 3 in `path`. `parent` is a discover run for the method internal, a pretrain run for raw_action."""
    stage = "discover" if config.reinforce.method == "internal" else "pretrain"
    parents = {stage: parent}
    run, config, seeds = _open(
        "reinforce", config, path, parents, parent_seed, seeds, resume, overwrite
    )
    frozen = load_parent(run)
    rule = _reinforce_stage(config)
    state = _init(lambda key: rule.init(config, key, frozen.base), config.seed, seeds)
    loop.run(
        f"reinforce {config.reinforce.method}",
        state,
        rule.make_update(config),
        total_steps=config.reinforce.iterations,
        runtime=config.runtime,
        run=run,
        headline="success",
        seeds_axis=seeds > 1,
        frozen=frozen,
        resume=resume,
        progress=progress,
    )
    return run


def load_params(run: RunDir, seed: int | None = 0) -> Params:
    """Trained parameters of a run from its newest checkpoint, or from the weights a run was imported with.

    Args:
        run: run of any stage.
        seed: which seed of a run with several; None keeps the seed axis (and adds one of size 1 if there is none).

    Raises:
        UserError: no checkpoint, or no such seed.

    Warns:
        UserWarning: the checkpoint is not that of the last step.
    """
    config, seeds = run.config, run.info["num_seeds"]
    if seed is not None and not 0 <= seed < seeds:
        raise UserError(f"{run.path}: no seed {seed}; allowed: 0..{seeds - 1}")
    weights = run.path / "weights"
    contested = run.stage == "discover" and config.discover.candidates > 1
    if contested and weights.exists():  # exported weights are the winner's alone
        contested = False
        config = replace(config, discover=replace(config.discover, candidates=1))
    template = _template(run.stage, config, seeds)
    if weights.exists():
        params, _ = import_params(weights / f"{run.stage}.safetensors", template.params)
    else:
        checkpoints = Checkpoints(run, config.runtime.keep_checkpoints)
        if checkpoints.latest_step() is None:
            raise UserError(f"{run.path}: no checkpoint yet; run the stage to its end first")
        state = checkpoints.restore_latest(template)[1]
        if contested and np.min(state.step) < config.discover.select_steps:
            raise UserError(
                f"{run.path}: its candidates are not compared before step "
                f"{config.discover.select_steps}; go on with the run first"
            )
        _check_trained(run, config, int(np.min(state.step)))
        params = state.params
        checkpoints.close()
    if contested:
        params = jax.vmap(contest.winner_of)(params) if seeds > 1 else contest.winner_of(params)
    if seed is None:
        return params if seeds > 1 else jax.tree.map(lambda x: x[None], params)
    return jax.tree.map(lambda x: x[seed], params) if seeds > 1 else params


def _check_trained(run: RunDir, config: Config, step: int) -> None:
    total = {
        "pretrain": config.pretrain.steps,
        "discover": config.discover.steps,
        "reinforce": config.reinforce.iterations,
    }[run.stage]
    if step == 0 < total:
        raise UserError(
            f"{run.path}: nothing is trained yet (step 0 of {total}); go on with the run first"
        )
    if step < total:
        warnings.warn(f"{run.path}: weights of step {step} of {total}", stacklevel=3)


def export_run(run: RunDir, path: Path, seed: int = 0) -> None:
    """Weights of one seed as `path` (safetensors); the JSON beside it says how they were made: all settings of the stage,
    the code and the machine.
    """
    metadata = {
        "stage": run.stage,
        "preset": run.config.name,
        "seed": run.config.seed,
        "seed_index": seed,
        "settings": config_to_json(getattr(run.config, run.stage)),
        "git": run.info["git"],
        "device": run.info["device"],
    }
    export_params(path, load_params(run, seed), metadata)


def load_base(run: RunDir, seed: int = 0) -> Params:
    """The base model of a pretrain run, or the one that a discover run built on (or trained along)."""
    if run.stage == "pretrain":
        return load_params(run, seed)
    if run.stage == "discover":
        if run.config.discover.cotrain:
            return load_params(run, seed)["base"]
        return load_base(run.parent("pretrain"), parent_seed_of(run))
    name = "discover" if run.config.reinforce.method == "internal" else "pretrain"
    return load_base(run.parent(name), parent_seed_of(run))


def parent_seed_of(run: RunDir) -> int:
    """Which seed of its parent run a run builds on."""
    return run.info["parent_seed"]


def load_frozen(run: RunDir, seed: int = 0) -> reinforce.Frozen:
    """Base model and metacontroller of a discover run; a pretrain run has no metacontroller."""
    if run.stage == "pretrain":
        return reinforce.Frozen(base=load_params(run, seed), metacontroller=None)
    params = load_params(run, seed)
    if run.config.discover.cotrain:
        return reinforce.Frozen(base=params["base"], metacontroller=params["metacontroller"])
    return reinforce.Frozen(base=load_base(run), metacontroller=params)


def load_parent(run: RunDir) -> reinforce.Frozen:
    """What a reinforce run was trained on: of its parent run the seed that it was built on."""
    stage = "discover" if run.config.reinforce.method == "internal" else "pretrain"
    return load_frozen(run.parent(stage), parent_seed_of(run))


def _reinforce_stage(config: Config) -> Any:
    """The module that trains on held-out tasks."""
    return reinforce if config.reinforce.credit.method == "trajectory" else reinforce_credit


def _initialiser(stage: str, config: Config):
    world = pretrain_world(config.env)
    if stage == "pretrain":
        return lambda key: pretrain.init(config, key)
    base = base_network(config, world.obs_spec, world.action_spec)
    if stage == "discover":
        return lambda key: discover.init(config, key, base.init(key))
    if stage == "reinforce":
        rule = _reinforce_stage(config)
        return lambda key: rule.init(config, key, base.init(key))
    raise UserError(f"stage '{stage}' has no weights; allowed: {', '.join(STAGES)}")


@lru_cache(maxsize=64)
def _template(stage: str, config: Config, seeds: int) -> Any:
    """Shapes of a run's state; cached, because every stage asks for those of its parents several times."""
    return jax.eval_shape(_states(_initialiser(stage, config), seeds), _keys(config.seed, seeds))


def _init(init: Callable, seed: int, seeds: int) -> Any:
    """State of one seed, or of several along a leading axis. Jitted: op by op it would take seconds."""
    return jax.jit(_states(init, seeds))(_keys(seed, seeds))


def _states(init: Callable, seeds: int) -> Callable:
    return init if seeds == 1 else jax.vmap(init)


def _keys(seed: int, seeds: int) -> Key[Array, "..."]:
    key = jax.random.key(seed)
    return key if seeds == 1 else jax.random.split(key, seeds)


def _open(
    stage: str,
    config: Config,
    path: Path,
    parents: Mapping[str, RunDir],
    parent_seed: int,
    seeds: int,
    resume: bool,
    overwrite: bool,
) -> tuple[RunDir, Config, int]:
    """Make the run directory, or reopen it with the config it was started with."""
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; allowed: at least 1")
    if resume:
        run = run_dir.open_run(path, stage)
        return run, run.config, run.info["num_seeds"]
    for name, parent in parents.items():
        if parent.stage != name:
            raise UserError(
                f"{parent.path} is a run of stage '{parent.stage}'; expected stage '{name}'"
            )
        # A broken parent is reported before anything is made or overwritten.
        load_params(parent, parent_seed)
        env = replace(parent.config.env, heldout_tasks=config.env.heldout_tasks)
        # What a run builds on is recorded as it was made, not as the config at hand would make it.
        made = (
            "model",
            "pretrain",
            *(("metacontroller", "discover") if name == "discover" else ()),
        )
        config = replace(config, env=env, **{part: getattr(parent.config, part) for part in made})
    validate(config, stage)
    run = run_dir.create(
        path,
        stage,
        config,
        overwrite=overwrite,
        parents=parents,
        parent_seed=parent_seed,
        num_seeds=seeds,
    )
    return run, config, seeds
