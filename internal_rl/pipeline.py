"""The stages as whole runs: directories in, directories out. The command line, the demo and the tests all go through
here.

Each `run_*` validates, makes (or reopens) the run directory, trains to the end and returns the directory. A state has a
leading seed axis only if the run has several seeds.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from internal_rl import build
from internal_rl.config import Config
from internal_rl.demonstrations.contract import Demonstrations, stacked
from internal_rl.demonstrations.views import check_view
from internal_rl.errors import UserError
from internal_rl.models.contract import Params
from internal_rl.runs import run_dir
from internal_rl.runs.checkpoint import Checkpoints, export_params, import_params
from internal_rl.runs.config_io import config_to_json
from internal_rl.runs.own_files import check_unchanged, fingerprints
from internal_rl.runs.run_dir import RunDir
from internal_rl.runs.train import Job, Program, shapes, train
from internal_rl.stages import contest, discover, pretrain, reinforce, reinforce_credit
from internal_rl.validate import validate

STAGES = ("pretrain", "discover", "reinforce")


def run_pretrain(config: Config, path: Path, **flags: Any) -> RunDir:
    """Stage 1 in `path`. Flags: see `runs.train.train`."""

    def check(config: Config) -> None:
        validate(config, "pretrain")
        world = build.pretrain_world(config.env)
        build.demonstrations(config, world, clean=False)

    job = Job(
        stage="pretrain",
        config=config,
        program=_pretrain_program,
        check=check,
        own_files=build.own_references,
    )
    return train(job, path, **flags)


def run_discover(
    config: Config, path: Path, base: RunDir, *, base_seed: int = 0, **flags: Any
) -> RunDir:
    """Stage 2 in `path`, on the base model of `base`. Flags: see `runs.train.train`."""

    def check(config: Config) -> None:
        load_params(base, base_seed)  # a broken parent is reported before anything is made
        validate(config, "discover")
        world = build.pretrain_world(config.env)
        check_view(world, config.discover)
        build.models(config, world)
        build.discovery_demonstrations(config, world)

    job = Job(
        stage="discover",
        config=_made_by(base, config, "pretrain"),
        program=_discover_program,
        check=check,
        own_files=build.own_references,
        parents={"pretrain": base},
        parent_seed=base_seed,
    )
    return train(job, path, **flags)


def run_reinforce(
    config: Config, path: Path, parent: RunDir, *, parent_seed: int = 0, **flags: Any
) -> RunDir:
    """Stage 3 in `path`. `parent` is a discover run for the method internal, a pretrain run for raw_action. Flags: see
    `runs.train.train`."""
    stage = parent_stage(config)

    def check(config: Config) -> None:
        load_params(parent, parent_seed)
        validate(config, "reinforce")
        world = build.heldout_world(config.env)
        build.models(config, world)
        world = reinforce.training_world(world, config.reinforce)
        if config.reinforce.credit.method != "trajectory":
            reinforce_credit.reward_kinds(world)

    job = Job(
        stage="reinforce",
        config=_made_by(parent, config, stage),
        program=_reinforce_program,
        check=check,
        own_files=build.own_references,
        parents={stage: parent},
        parent_seed=parent_seed,
    )
    return train(job, path, **flags)


def parent_stage(config: Config) -> str:
    """The stage that a reinforce run with this config builds on."""
    return "discover" if config.reinforce.method == "internal" else "pretrain"


def _made_by(parent: RunDir, config: Config, stage: str) -> Config:
    """What a run builds on is recorded as it was made, not as the config at hand would make it."""
    if parent.stage != stage:
        raise UserError(
            f"{parent.path} is a run of stage '{parent.stage}'; expected stage '{stage}'"
        )
    env = replace(parent.config.env, heldout_tasks=config.env.heldout_tasks)
    made = ["model", "pretrain"]
    if stage == "discover":
        made += ["data", "metacontroller", "discover"]
    return replace(config, env=env, **{part: getattr(parent.config, part) for part in made})


def _pretrain_program(config: Config, run: RunDir, seeds: int) -> Program:
    world = build.pretrain_world(config.env)
    source, feed = _fed(
        build.demonstrations(config, world, clean=False), config, seeds, clean=False
    )
    network = build.base_network(config.model, world)
    return Program(
        init=_initialiser("pretrain", config, statistics=getattr(source, "obs_statistics", None)),
        update=pretrain.make_update(config.pretrain, network, None if feed else source),
        total_steps=config.pretrain.steps,
        headline="action_nll",
        frozen=() if feed else source.data,
        feed=feed,
    )


def _discover_program(config: Config, run: RunDir, seeds: int) -> Program:
    world = build.pretrain_world(config.env)
    main, tail = build.discovery_demonstrations(config, world)
    source, feed = _fed(main, config, seeds, clean=True)
    base_params = load_base(run.parent("pretrain"), parent_seed_of(run))
    return Program(
        init=lambda key: discover.init(
            config.discover, build.models(config, world), key, base_params
        ),
        update=discover.make_update(
            config.discover, build.models(config, world), world, None if feed else source, tail
        ),
        total_steps=config.discover.steps,
        headline="loss",
        frozen=(base_params, () if feed else source.data),
        feed=feed,
    )


def _reinforce_program(config: Config, run: RunDir, seeds: int) -> Program:
    world = reinforce.training_world(build.heldout_world(config.env), config.reinforce)
    models = build.models(config, world)
    frozen = load_parent(run)
    init, make_update = _reinforce_rule(config)
    return Program(
        title=f"reinforce {config.reinforce.method}",
        init=lambda key: init(config.reinforce, models, key, frozen.base),
        update=make_update(config.reinforce, models, world),
        total_steps=config.reinforce.iterations,
        headline="success",
        frozen=frozen,
    )


def _fed(
    source: Any, config: Config, seeds: int, *, clean: bool
) -> tuple[Demonstrations, Callable[[int], Any] | None]:
    """Demonstrations, and a function that makes chunks of batches where they do not fit on the device."""
    if not hasattr(source, "host_rows") or getattr(source, "on_device", False):
        return source, None
    count = config.discover.batch_size if clean else config.pretrain.batch_size

    def feed(step: int) -> Any:
        def one(n: int) -> Any:
            rows = [source.host_rows(config.seed + s, n, count, clean=clean) for s in range(seeds)]
            return rows[0] if seeds == 1 else stacked(rows)

        return stacked([one(step + i) for i in range(config.runtime.log_every)])

    return source, feed


def run_of_weights(
    stage: str,
    config: Config,
    path: Path,
    files: Mapping[str, bytes],
    *,
    parents: Mapping[str, RunDir] | None = None,
    overwrite: bool = False,
) -> RunDir:
    """A finished run directory around weights that were made elsewhere: packaged or adopted ones.

    Args:
        files: `STAGE.safetensors` and `STAGE.json` as `export_params` writes them.

    Raises:
        UserError: shapes or checksums are wrong; nothing is left at `path` then.
    """
    run = run_dir.create(
        path,
        stage,
        config,
        parents=parents,
        overwrite=overwrite,
        own_files=fingerprints(build.own_references(config)),
    )
    try:
        (run.path / "weights").mkdir()
        for name, content in files.items():
            (run.path / "weights" / name).write_bytes(content)
        load_params(run)  # checked here, not after an hour of RL
    except UserError:
        shutil.rmtree(run.path)
        raise
    run.set_status("done")
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
    check_unchanged(run)
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


@lru_cache(maxsize=64)
def _template(stage: str, config: Config, seeds: int) -> Any:
    """Shapes of a run's state; cached, because every stage asks for those of its parents several times."""
    return shapes(_initialiser(stage, config), config.seed, seeds)


def _initialiser(stage: str, config: Config, statistics: tuple | None = None) -> Callable:
    """key → state of a stage, on base weights of the right shape."""
    if stage == "pretrain":
        network = build.base_network(config.model, build.pretrain_world(config.env))
        return lambda key: pretrain.init(config.pretrain, network, key, statistics)
    if stage == "discover":
        models = build.models(config, build.pretrain_world(config.env))
        return lambda key: discover.init(config.discover, models, key, models.base.init(key))
    if stage == "reinforce":
        models = build.models(config, build.heldout_world(config.env))
        init, _ = _reinforce_rule(config)
        return lambda key: init(config.reinforce, models, key, models.base.init(key))
    raise UserError(f"stage '{stage}' has no weights; allowed: {', '.join(STAGES)}")


def _reinforce_rule(config: Config) -> tuple[Callable, Callable]:
    """`init` and `make_update` of what trains on the held-out tasks."""
    if config.reinforce.credit.method == "trajectory":
        return reinforce.init, reinforce.make_update
    world = reinforce.training_world(build.heldout_world(config.env), config.reinforce)
    return partial(reinforce_credit.init, world=world), reinforce_credit.make_update
