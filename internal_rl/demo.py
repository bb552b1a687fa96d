"""The main job in one command: four stages, the raw-action baseline, a table, figures and a report.

A demo folder holds one run directory per stage, `demo.json` (what was asked for and which seconds are spent),
`summary.json`, `report.md` and the figures. Every step can be interrupted and gone on with.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from internal_rl import build, pipeline
from internal_rl.analysis.demo_report import draw_figures, report_text, table
from internal_rl.analysis.report import evaluate_run, policy_outcome
from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.runs.checkpoint import read_metadata
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.loop import timing_totals
from internal_rl.runs.run_dir import RunDir, open_run, write_json
from internal_rl.stages import evaluate
from internal_rl.validate import validate

PACKAGED_WEIGHTS = "weights"


def run_demo(
    config: Config,
    folder: Path,
    *,
    scratch: bool,
    seeds: int,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run everything into `folder`, write summary.json and report.md there and return the summary.

    Args:
        config: preset.
        folder: made if needed. An existing demo folder needs `resume` or `overwrite`.
        scratch: train base model and metacontroller, too; otherwise those that come with the package are taken.
        seeds: RL seeds.

    Raises:
        UserError: the folder is in the way, or belongs to a demo that was started differently.
    """
    validate(config)
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; allowed: at least 1")
    asked = {"config": config_to_json(config), "scratch": scratch, "seeds": seeds}
    log = _open_folder(folder, asked, resume, overwrite)

    def stage(name: str, run: Callable[[Path, bool], RunDir]) -> RunDir:
        path = folder / name
        if log["seconds"].get(name) is not None:
            return open_run(path)
        resumed, started = path.exists(), time.perf_counter()
        result = run(path, resumed)
        log["seconds"][name] = time.perf_counter() - started
        if resumed:  # its own log knows the sittings before this one, too
            log["seconds"][name] = sum(timing_totals(result).values())
        write_json(folder / "demo.json", log)
        return result

    options = {"progress": progress}
    packaged = [] if scratch else packaged_stages(config)

    def pretrain(path: Path, again: bool) -> RunDir:
        if "pretrain" in packaged:
            return import_packaged(config, "pretrain", path, None)
        return pipeline.run_pretrain(config, path, resume=again, **options)

    def discover(path: Path, again: bool) -> RunDir:
        if "discover" in packaged:
            return import_packaged(config, "discover", path, base)
        return pipeline.run_discover(config, path, base, resume=again, **options)

    base = stage("pretrain", pretrain)
    meta = stage("discover", discover)
    internal = stage(
        "reinforce_internal",
        lambda path, again: pipeline.run_reinforce(
            config, path, meta, seeds=seeds, resume=again, **options
        ),
    )
    raw_config = replace(config, reinforce=config.raw_action)
    raw = stage(
        "reinforce_raw_action",
        lambda path, again: pipeline.run_reinforce(
            raw_config, path, base, seeds=seeds, resume=again, **options
        ),
    )

    started = time.perf_counter()
    summary = _measure(config, base, meta, internal, raw, seeds)
    figures = draw_figures(config, folder, summary, base, meta, internal, raw)
    log["seconds"]["evaluate"] = time.perf_counter() - started
    summary["wall_seconds"] = _wall_seconds(log["seconds"])
    summary["trained_stages"] = [n for n in ("pretrain", "discover") if n not in packaged]
    write_json(folder / "summary.json", summary)
    (folder / "report.md").write_text(report_text(config, summary, figures), encoding="utf-8")
    print(table(summary))
    print(f"\n{folder / 'report.md'}\n{folder / 'summary.json'}")
    return summary


def packaged_stages(config: Config) -> list[str]:
    """Stages whose trained weights come with the package for this preset."""
    return [
        stage
        for stage in ("pretrain", "discover")
        if all(file.is_file() for file in _packaged_files(config, stage))
    ]


def _packaged_files(config: Config, stage: str) -> list[Traversable]:
    source = resources.files("configs") / PACKAGED_WEIGHTS / config.name
    return [source / f"{stage}.safetensors", source / f"{stage}.json"]


def import_packaged(config: Config, stage: str, path: Path, parent: RunDir | None) -> RunDir:
    """A run directory around the weights that come with the package.

    Its config says how they were made: with the `settings` of the stage in the JSON beside them, whatever the preset
    says by now (for fields that are newer than the weights, the preset's).

    Raises:
        UserError: there are none for this preset.
    """
    files = _packaged_files(config, stage)
    if not all(file.is_file() for file in files):
        raise UserError(f"no packaged {stage} weights for preset '{config.name}'; use --scratch")
    with resources.as_file(files[1]) as description:
        settings = read_metadata(description)["settings"]
    own = getattr(config, stage)
    made = config_from_json(config_to_json(own) | settings, type(own), source=files[1].name)
    config = replace(config, **{stage: made})
    arrays = {file.name: file.read_bytes() for file in files}
    parents = {} if parent is None else {"pretrain": parent}
    return pipeline.run_of_weights(
        stage, config, path, arrays, parents=parents, overwrite=path.exists()
    )


def _open_folder(folder: Path, asked: dict, resume: bool, overwrite: bool) -> dict[str, Any]:
    record = folder / "demo.json"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not record.is_file():
            raise UserError(f"{folder} exists and holds no demo; choose another folder with --run")
        if overwrite:
            shutil.rmtree(folder)
        elif not resume:
            raise UserError(f"demo {folder} exists; pass --resume to go on, or --overwrite")
        else:
            log = json.loads(record.read_text(encoding="utf-8"))
            if log["asked"] != asked:
                raise UserError(
                    f"demo {folder} was started with another config or other flags; "
                    "pass --overwrite, or choose another folder with --run"
                )
            return log
    folder.mkdir(parents=True, exist_ok=True)
    log = {"asked": asked, "seconds": {}}
    write_json(record, log)
    return log


def _measure(
    config: Config, base: RunDir, meta: RunDir, internal: RunDir, raw: RunDir, seeds: int
) -> dict[str, Any]:
    tasks = config.env.heldout_tasks
    world = build.heldout_world(config.env)
    of_base = evaluate_run(base, config, tasks, seeds)
    of_meta = evaluate_run(meta, config, tasks, seeds)
    methods = {}
    for run in (internal, raw):
        name, outcome = policy_outcome(run, run.config, world)
        cfg = run.config.reinforce
        episodes = cfg.iterations * cfg.batch_size
        methods[name] = {**evaluate.summarise(outcome, seed=config.seed), "episodes": episodes}
    methods["prior_sampling"] = {**of_meta["prior_sampling"], "episodes": 0}
    for name, found in (("replayed_codes", of_meta), ("uncontrolled", of_base)):
        if name in found:
            methods[name] = {**found[name], "episodes": 0}
    oracle = getattr(build.pretrain_world(config.env), "oracle", None)
    bounds = jax.jit(lambda key: oracle(key, 4096))(jax.random.key(config.seed)) if oracle else {}
    return {
        "preset": config.name,
        "tasks": list(tasks),
        "seeds": seeds,
        "methods": methods,
        "switching": of_meta.get("switching"),
        "switching_heldout": of_meta.get("switching_these_tasks"),
        "steering": of_base.get("steering"),
        "oracle_nats_per_step": {k: float(v) for k, v in bounds.items()},
        "env_steps_per_second": _env_steps_per_second(internal, seeds),
        # Only starts are played in which the task can be solved.
        "solvable_fraction": float(np.mean(read_metrics(internal).get("solvable_fraction", 1.0))),
        "device": internal.info["device"],
        "git": internal.info["git"],
    }


def _env_steps_per_second(run: RunDir, seeds: int) -> float:
    """Environment steps of all seeds over the seconds of the training loop, without compilation."""
    from internal_rl.runs.loop import timing_totals

    metrics = read_metrics(run)
    per_iteration = float(np.mean(metrics["episode_length"])) * run.config.reinforce.batch_size
    steps = per_iteration * run.config.reinforce.iterations * seeds
    return steps / timing_totals(run)["wall_seconds"]


def _wall_seconds(seconds: dict[str, float]) -> dict[str, float]:
    wall = {
        "pretrain": seconds["pretrain"],
        "discover": seconds["discover"],
        "reinforce": seconds["reinforce_internal"] + seconds["reinforce_raw_action"],
        "evaluate": seconds["evaluate"],
    }
    install = os.environ.get("INTERNAL_RL_INSTALL_SECONDS")
    if install:
        wall["install"] = float(install)
    wall["total"] = sum(wall.values())
    return wall
