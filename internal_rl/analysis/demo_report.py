"""Tables, figures and text of a demo, from its runs and its summary."""

from pathlib import Path
from typing import Any

import numpy as np

from internal_rl import build, pipeline
from internal_rl.analysis.report import draw_episode, draw_switching
from internal_rl.config import Config
from internal_rl.runs import plots
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir


def draw_figures(
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
    drawn = {"learning_curves": "figures/learning_curves.png"}
    world = build.heldout_world(config.env)
    if world.num_goals:
        draw_switching(config, frozen, figures / "switching.png")
        drawn["switching"] = "figures/switching.png"
    if hasattr(world, "draw"):
        draw_episode(config, frozen, pipeline.load_params(internal), figures / "episode.gif")
        drawn["episode"] = "figures/episode.gif"
    losses = _losses(read_metrics(base), read_metrics(meta))
    if losses:  # packaged weights come without
        nats = summary["oracle_nats_per_step"]
        plots.stage_losses(
            figures / "losses.png",
            losses,
            references={
                "pretrain": {"best predictor (Bayes)": nats["bayes"]},
                "discover": {"entropy of the expert (random ties)": nats["expert"]},
            }
            if nats
            else {},
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


def table(summary: dict[str, Any]) -> str:
    lines = [
        "| method | training episodes per seed | success (IQM) | 95 % interval | sub-goals reached |",
        "|---|---|---|---|---|",
    ]
    for name, label in _LABELS.items():
        row = summary["methods"].get(name)
        if row is None:  # the world has no sub-goals to replay codes by
            continue
        low, high = row["ci95"]
        lines.append(
            f"| {label} | {row['episodes']:,} | {row['success_iqm']:.3f} | "
            f"[{low:.3f}, {high:.3f}] | {row['subgoals']:.2f} |"
        )
    steering = summary["steering"]
    if steering:
        low, high = steering["ci95"]
        lines.append(
            f"| labelled controllers (know the goals) | 0 | {steering['success']:.3f} | "
            f"[{low:.3f}, {high:.3f}] | {steering['subgoals']:.2f} |"
        )
    return "\n".join(lines)


def report_text(config: Config, summary: dict[str, Any], figures: dict[str, str]) -> str:
    """The report in Markdown; parts that the world has no sub-goals or pictures for are left out."""
    wall, world = summary["wall_seconds"], config.env.world
    task = ", ".join("-".join(task) for task in config.env.heldout_tasks)
    packaged = [n for n in ("pretrain", "discover") if n not in summary["trained_stages"]]
    origin = (
        f"Weights of {' and '.join(packaged)} come with the package; everything else was trained in this run."
        if packaged
        else "All stages were trained in this run."
    )
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in wall.items())
    parts = [
        f"# Internal RL on {world}",
        f"Preset `{config.name}`, held-out task {task}, {summary['seeds']} RL seeds. {origin}",
        table(summary),
        (
            f"Every figure in the table is measured on {summary['methods']['internal_rl']['evaluation_episodes']} fresh "
            "episodes per seed. Intervals resample seeds, then episodes; where no episode (or every one) "
            "succeeded, the Wilson interval of the pooled episodes is given. Of uniform starts, "
            f"{summary['solvable_fraction']:.1%} can be solved; the others are drawn again."
        ),
        *_switching_text(summary),
        f"Wall time: {seconds}. Internal RL ran {summary['env_steps_per_second']:,.0f} environment steps per second.",
    ]
    sections = {
        "learning_curves": "## Success during RL",
        "switching": "## When the metacontroller switches",
        "episode": (
            "## One episode on the held-out task\n\n"
            "The trace is the gate β_t; below it the active code z_t and the true sub-goal."
        ),
        "losses": "## Losses of the first two stages",
    }
    for name, heading in sections.items():
        if name in figures:
            parts += [heading, f"![{name.replace('_', ' ')}]({figures[name]})"]
    return "\n\n".join(parts) + "\n"


def _switching_text(summary: dict[str, Any]) -> list[str]:
    """Sentences on when the metacontroller switches; none in a world without sub-goals."""
    switching, heldout = summary["switching"], summary["switching_heldout"]
    if switching is None:
        return []
    text = (
        "Hard switches against true sub-goal changes on fresh expert trajectories, first step left out: on the "
        f"pretraining tasks precision {switching['precision']:.2f}, recall {switching['recall']:.2f}, "
        f"F1 {switching['f1']:.2f}; {switching['switches_per_episode']:.1f} switches per episode."
    )
    if heldout is not None:
        text += (
            " On the held-out task, the expert drawing among its optimal actions, "
            f"F1 {heldout['f1']:.2f} (precision {heldout['precision']:.2f}, recall {heldout['recall']:.2f})."
        )
    return [text]
