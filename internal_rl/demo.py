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

from internal_rl import pipeline
from internal_rl.analysis.oracle import oracle_nll
from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.report import draw_episode, draw_switching, evaluate_run, policy_outcome
from internal_rl.runs import plots
from internal_rl.runs.checkpoint import read_metadata
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.loop import timing_totals
from internal_rl.runs.run_dir import RunDir, create, open_run, write_json
from internal_rl.stages import evaluate
from internal_rl.validate import validate
from internal_rl.world import heldout_world, pretrain_world

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
    figures = _draw(config, folder, summary, base, meta, internal, raw)
    log["seconds"]["evaluate"] = time.perf_counter() - started
    summary["wall_seconds"] = _wall_seconds(log["seconds"])
    summary["trained_stages"] = [n for n in ("pretrain", "discover") if n not in packaged]
    write_json(folder / "summary.json", summary)
    (folder / "report.md").write_text(_report(config, summary, figures), encoding="utf-8")
    print(_table(summary))
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
    parents = {} if parent is None else {"pretrain": parent}
    run = create(path, stage, config, parents=parents, overwrite=path.exists())
    (run.path / "weights").mkdir()
    for file in files:
        (run.path / "weights" / file.name).write_bytes(file.read_bytes())
    pipeline.load_params(run)  # shapes and checksums are checked here, not after an hour of RL
    run.set_status("done")
    return run


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
    world = heldout_world(config.env)
    of_base = evaluate_run(base, config, tasks, seeds)
    of_meta = evaluate_run(meta, config, tasks, seeds)
    methods = {}
    for run in (internal, raw):
        name, outcome = policy_outcome(run, run.config, world)
        cfg = run.config.reinforce
        episodes = cfg.iterations * cfg.batch_size
        methods[name] = {**evaluate.summarise(outcome, seed=config.seed), "episodes": episodes}
    methods["prior_sampling"] = {**of_meta["prior_sampling"], "episodes": 0}
    methods["replayed_codes"] = {**of_meta["replayed_codes"], "episodes": 0}
    methods["uncontrolled"] = {**of_base["uncontrolled"], "episodes": 0}
    oracle = jax.jit(lambda key: oracle_nll(key, pretrain_world(config.env), 4096))
    return {
        "preset": config.name,
        "tasks": list(tasks),
        "seeds": seeds,
        "methods": methods,
        "switching": of_meta["switching"],
        "switching_heldout": of_meta["switching_these_tasks"],
        "steering": of_base["steering"],
        "oracle_nats_per_step": {
            k: float(v) for k, v in oracle(jax.random.key(config.seed)).items()
        },
        "env_steps_per_second": _env_steps_per_second(internal, seeds),
        # Only layouts are played in which the task can be solved.
        "solvable_fraction": float(np.mean(read_metrics(internal)["solvable_fraction"])),
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


def _draw(
    config: Config,
    folder: Path,
    summary: dict[str, Any],
    base: RunDir,
    meta: RunDir,
    internal: RunDir,
    raw: RunDir,
) -> dict[str, str]:
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    frozen = pipeline.load_frozen(meta)
    curves = {}
    for name, run in (("internal RL", internal), ("raw-action RL", raw)):
        metrics = read_metrics(run)
        success = np.atleast_2d(metrics["success"].T)
        curves[name] = (metrics["step"] * run.config.reinforce.batch_size, success)
    chunk = config.runtime.log_every * config.reinforce.batch_size
    plots.learning_curves(
        figures / "learning_curves.png",
        curves,
        title=f"Held-out task {', '.join('-'.join(t) for t in config.env.heldout_tasks)}",
        episodes_per_point=chunk,
    )
    draw_switching(config, frozen, figures / "switching.png")
    draw_episode(config, frozen, pipeline.load_params(internal), figures / "episode.gif")
    drawn = {
        "learning_curves": "figures/learning_curves.png",
        "switching": "figures/switching.png",
        "episode": "figures/episode.gif",
    }
    losses = _losses(read_metrics(base), read_metrics(meta))
    if losses:  # packaged weights come without
        nats = summary["oracle_nats_per_step"]
        plots.stage_losses(
            figures / "losses.png",
            losses,
            references={
                "pretrain": {"best predictor (Bayes)": nats["bayes"]},
                "discover": {"entropy of the expert (random ties)": nats["expert"]},
            },
            ylabels={"discover: switches": "fraction"},
        )
        drawn["losses"] = "figures/losses.png"
    return drawn


def _losses(pretrain: dict[str, Any], discover: dict[str, Any]) -> dict[str, Any]:
    """Curves by panel; no panel for a stage that was not trained here."""
    panels = {}
    if pretrain:
        panels["pretrain"] = {"action NLL": (pretrain["step"], pretrain["action_nll"])}
    if discover:
        x = discover["step"]
        panels["discover"] = {"action NLL": (x, discover["action_nll"])}
        panels["discover: codes"] = {"KL to the prior": (x, discover["kl"])}
        panels["discover: switches"] = {
            "F1 against sub-goal changes": (x, discover["f1"]),
            "mean gate": (x, discover["gate"]),
        }
    return panels


_LABELS = {
    "internal_rl": "internal RL",
    "raw_action": "raw-action RL",
    "prior_sampling": "prior sampling, z ~ N(0, I)",
    "replayed_codes": "codes of the expert, replayed in the true order",
    "uncontrolled": "base model, uncontrolled",
}


def _table(summary: dict[str, Any]) -> str:
    lines = [
        "| method | training episodes per seed | success (IQM) | 95 % interval | sub-goals reached |",
        "|---|---|---|---|---|",
    ]
    for name, label in _LABELS.items():
        row = summary["methods"][name]
        low, high = row["ci95"]
        lines.append(
            f"| {label} | {row['episodes']:,} | {row['success_iqm']:.3f} | "
            f"[{low:.3f}, {high:.3f}] | {row['subgoals']:.2f} |"
        )
    steering = summary["steering"]
    low, high = steering["ci95"]
    lines.append(
        f"| labelled controllers (know the goals) | 0 | {steering['success']:.3f} | "
        f"[{low:.3f}, {high:.3f}] | {steering['subgoals']:.2f} |"
    )
    return "\n".join(lines)


def _report(config: Config, summary: dict[str, Any], figures: dict[str, str]) -> str:
    switching, wall = summary["switching"], summary["wall_seconds"]
    heldout = summary["switching_heldout"]
    task = ", ".join("-".join(task) for task in config.env.heldout_tasks)
    packaged = [n for n in ("pretrain", "discover") if n not in summary["trained_stages"]]
    origin = (
        f"Weights of {' and '.join(packaged)} come with the package; everything else was trained in this run."
        if packaged
        else "All stages were trained in this run."
    )
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in wall.items())
    parts = [
        "# Internal RL on gridworld-pinpad",
        f"Preset `{config.name}`, held-out task {task}, {summary['seeds']} RL seeds. {origin}",
        _table(summary),
        (
            f"Every figure in the table is measured on {summary['methods']['internal_rl']['evaluation_episodes']} fresh "
            "solvable layouts per seed. Intervals resample seeds, then episodes; where no episode (or every one) "
            "succeeded, the Wilson interval of the pooled episodes is given. Of uniform layouts, "
            f"{summary['solvable_fraction']:.1%} can be solved; the others are drawn again."
        ),
        (
            "Hard switches against true sub-goal changes on fresh expert trajectories, first step left out: on the "
            f"pretraining tasks precision {switching['precision']:.2f}, recall {switching['recall']:.2f}, "
            f"F1 {switching['f1']:.2f}; {switching['switches_per_episode']:.1f} switches per episode. On the held-out "
            f"task, the expert drawing among its optimal actions, F1 {heldout['f1']:.2f} (precision "
            f"{heldout['precision']:.2f}, recall {heldout['recall']:.2f})."
        ),
        f"Wall time: {seconds}. Internal RL ran {summary['env_steps_per_second']:,.0f} environment steps per second.",
        "## Success during RL",
        f"![learning curves]({figures['learning_curves']})",
        "## When the metacontroller switches",
        f"![switching]({figures['switching']})",
        "## One episode on the held-out task",
        "The trace is the gate β_t; below it the active code z_t and the true sub-goal.",
        f"![episode]({figures['episode']})",
    ]
    if "losses" in figures:
        parts += ["## Losses of the first two stages", f"![losses]({figures['losses']})"]
    return "\n\n".join(parts) + "\n"
