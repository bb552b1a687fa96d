"""COALA's figures (arXiv 2410.18636): trains what is missing, draws it.

The paper prints no numbers for its curves, so each figure's docstring and the results page state its claim. Runs are kept
under `--runs` and continued where they were interrupted; figures share them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from matplotlib.figure import Figure

from agents.learning_aware.analytic import learning_curve
from configs import social as presets
from envs.social.analytic import STATES
from internal_rl.runs.run_dir import RunDir
from internal_rl.social.config import AnalyticConfig
from internal_rl.social.evaluate import evaluate_run, summary
from internal_rl.social.pipeline import load_state
from reproductions.social_figures import (
    BAND,
    ESTIMATORS,
    LABELS,
    RUNS,
    analytic_run,
    column,
    draw,
    ending,
    origin,
    run_path,
    sampled_configs,
    trained,
    write,
)

Scale = Literal["tabular", "hawk", "paper"]


def fig3(
    seeds: int = 20, runs: Path = RUNS, output: Path = Path("docs/results/coala-fig3")
) -> None:
    """Fig. 3, the analytical game: extortion of naive learners, cooperation of extortionists, mixed and pure pools.

    Args:
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    names = ("coala-fig3a", "coala-fig3b", "coala-fig3c", "coala-fig3c-meta-only")
    a, b, mixed, pure = (analytic_run(name, seeds, runs) for name in names)
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw(left, *column(a, "naive/ego_reward"), "C0", "meta")
    draw(left, *column(a, "naive/co_reward"), "C1", "naive")
    left.set(title="A: against naive learners, from defection", ylabel="reward per step")
    draw(middle, *column(b, "meta/reward"), "C2", "metas against each other")
    middle.axvline(600, color="0.3", linestyle="--", linewidth=1, label="naive learners leave")
    middle.set(title="B: extortionists trained on each other")
    draw(right, *column(mixed, "meta/reward"), "C2", "mixed pool, p_naive 0.25")
    draw(right, *column(pure, "meta/reward"), "C3", "meta agents only")
    draw(right, *column(mixed, "naive/ego_reward"), "C0", "mixed: meta against naive", "--")
    right.set(title="C: mixed and pure pools")
    for axes in (left, middle, right):
        axes.set(xlabel="meta updates", ylim=(-0.35, 1.35))
    steps, values = column(b, "meta/reward")
    best = int(np.median(values, axis=0).argmax())
    rows = {
        "a": {who: ending(a, f"naive/{who}_reward") for who in ("ego", "co")},
        "a fresh naive learner, 20 updates": evaluate_run(a, naive_updates=20)["fresh_naive"],
        "b": {
            "end": ending(b, "meta/reward"),
            "best median": {"step": int(steps[best])} | summary(values[:, best]),
        },
        "c": {
            "mixed": _with_count(mixed),
            "meta only": _with_count(pure),
            "mixed against naive": {w: ending(mixed, f"naive/{w}_reward") for w in ("ego", "co")},
        },
        "runs": {name: origin(r) for name, r in zip(names, (a, b, mixed, pure), strict=True)},
    }
    write(figure, output, rows, BAND)


def fig4(
    seeds: int = 32,
    look_aheads: tuple[int, ...] = (1, 2, 3, 10, 20),
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-fig4"),
) -> None:
    """Fig. 4: exact LOLA-DiCE by number of look-aheads (A), against a fresh naive learner (B), repaired (C).

    Args:
        seeds: trained at once.
        look_aheads: imagined updates; those of the paper have a preset.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    plain = {n: analytic_run(f"coala-fig4a-{n}", seeds, runs) for n in look_aheads}
    repaired = {
        n: analytic_run(f"coala-fig4c-{n}", seeds, runs)
        for n in look_aheads
        if f"coala-fig4c-{n}" in presets.PRESETS
    }
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows: dict[str, Any] = {}
    for i, (label, found) in enumerate((("LOLA-DiCE", plain), ("with plain gradient", repaired))):
        own = {n: ending(run, "meta/reward") for n, run in found.items()}
        values = np.array([row["seeds"] for row in own.values()])
        error = values.std(1, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
        x = [look_aheads.index(n) for n in own]
        left.errorbar(x, values.mean(1), error, color=f"C{i}", marker="o", capsize=3, label=label)
        rows[label] = {n: row | {"mean": float(np.mean(row["seeds"]))} for n, row in own.items()}
    left.set(xlabel="look-aheads", ylabel="reward against each other, mean and standard error")
    left.set_xticks(range(len(look_aheads)), [str(n) for n in look_aheads])
    left.set(title="A, C: more look-aheads cooperate less", ylim=(-0.1, 1.1))
    run = plain[max(look_aheads)]
    own, theirs = _fresh(run, 400)
    draw(right, np.arange(401), own, "C0", f"LOLA-DiCE, {max(look_aheads)} look-aheads")
    draw(right, np.arange(401), theirs, "C1", "fresh naive learner")
    right.set(xlabel="updates of the naive learner", ylabel="reward per step")
    right.set(title="B: frozen, against a fresh learner")
    rows["fresh naive learner"] = {"ego": summary(own[:, -1]), "co": summary(theirs[:, -1])}
    rows["runs"] = {run.path.name: origin(run) for run in (*plain.values(), *repaired.values())}
    write(figure, output, rows)


def fig5(
    scale: Scale = "tabular",
    panels: tuple[Literal["shaping", "pool"], ...] = ("shaping", "pool"),
    estimators: tuple[str, ...] = ESTIMATORS,
    seeds: int = 5,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-fig5"),
) -> None:
    """Fig. 5, the sampled game: shaping naive learners (A, B) and the mixed pool (C), by estimator.

    Args:
        scale: tabular and hawk take minutes to hours on a CPU, paper is for an accelerator.
        panels: shaping draws A and B, pool draws C; with coala among the estimators, C has a pool without naive
            learners, too.
        estimators: coala, batch_unaware, m_fos, lola_dice, full, myopic, or your own, file.py:NAME.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    suffix = {"tabular": "tabular", "hawk": "hawk-laptop", "paper": "paper"}[scale]
    presets_of = {"shaping": f"ipd-shaping-{suffix}", "pool": f"ipd-mixed-{suffix}"}
    configs = {panel: sampled_configs(presets_of[panel], estimators) for panel in panels}
    width = 2 * ("shaping" in panels) + ("pool" in panels)
    figure = Figure(figsize=(5 * width, 4.4), layout="constrained")
    axes = list(figure.subplots(1, width, squeeze=False)[0])
    rows: dict[str, Any] = {"runs": {}}
    if "shaping" in panels:
        learning, inner = axes[:2]
        for i, (name, config) in enumerate(configs["shaping"].items()):
            run = trained(config, run_path(runs, config), seeds)
            result, label = evaluate_run(run, episodes=32), LABELS.get(name, name)
            draw(learning, *column(run, "naive/ego_reward"), f"C{i}", label, _line(name))
            for who, style in (("ego", "-"), ("co", "--")):
                values = np.asarray(result["by_inner_episode"]["naive"][who])
                x = np.arange(1, values.shape[1] + 1)
                draw(
                    inner, x, values, f"C{i}", label if who == "ego" else f"_naive, {label}", style
                )
            rows[f"shaping {name}"] = result["reward"]["naive"]
            rows["runs"][run.path.name] = origin(run)
        learning.set(
            xlabel="meta updates",
            ylabel="reward per step",
            title="A: meta agent against naive learners",
        )
        inner.set(
            xlabel="inner episode",
            ylabel="reward per step",
            title="B: after training (dashed: the naive learner)",
        )
    if "pool" in panels:
        pools = {LABELS.get(name, name): config for name, config in configs["pool"].items()}
        if "coala" in estimators:
            pools[f"{LABELS['coala']}, no naive learners"] = presets.meta_only(
                configs["pool"]["coala"]
            )
        for i, (label, config) in enumerate(pools.items()):
            run = trained(config, run_path(runs, config), seeds)
            style = ":" if not config.pool.p_naive else _line(config.pool.estimator)
            draw(axes[-1], *column(run, "meta/ego_reward"), f"C{i}", label, style)
            result = evaluate_run(run, episodes=8)
            name = config.pool.estimator + (" without naive" if not config.pool.p_naive else "")
            rows[f"pool {name}"] = result["reward"]
            # Half the reward of cooperation may be alternation, which only these tell from it.
            rows[f"cooperation by observation, {name}"] = result["cooperation_by_observation"]
            rows["runs"][run.path.name] = origin(run)
        axes[-1].set(
            xlabel="meta updates",
            ylabel="reward per step",
            title="C: metas against each other, mixed pool",
        )
    write(figure, output, rows, BAND)


def _line(estimator: str) -> str:
    """Dashed for M-FOS, because batch-unaware lies beneath it."""
    return "--" if estimator == "m_fos" else "-"


def fig6(
    preset: str = "cleanup-shaping-paper",
    estimators: tuple[str, ...] = ESTIMATORS,
    seeds: int = 5,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-fig6"),
) -> None:
    """Fig. 6 and 13: CleanUp-lite against naive learners: reward, zaps, cleaning, dirt and apples.

    Args:
        preset: the paper's is for an accelerator; cleanup-smoke runs in a minute.
        estimators: weights on the scores against naive learners.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    _cleanup(preset, "naive", estimators, seeds, runs, output)


def fig7(
    preset: str = "cleanup-mixed-paper",
    estimators: tuple[str, ...] = ESTIMATORS,
    seeds: int = 5,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-fig7"),
) -> None:
    """Fig. 7 and 14: CleanUp-lite in the mixed pool, meta agents against each other: how evenly they share cleaning, too.

    Args:
        preset: the paper's is for an accelerator; cleanup-smoke runs in a minute.
        estimators: weights on the scores against naive learners.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    _cleanup(preset, "meta", estimators, seeds, runs, output)


def fig9(seeds: int = 8, runs: Path = RUNS, output: Path = Path("docs/results/coala-fig9")) -> None:
    """Fig. 9 and 10: the mixed pool from mutual defection and from mutual tit-for-tat.

    Args:
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    rows: dict[str, Any] = {}
    starts = (
        ("coala-fig9", "from mutual defection"),
        ("coala-fig9-logits", "all from defection"),
        ("coala-fig10", "from mutual tit-for-tat"),
    )
    for axes, (name, title) in zip(figure.subplots(1, 3), starts, strict=True):
        run = analytic_run(name, seeds, runs)
        agents = run.load_config(AnalyticConfig).agents
        draw(axes, *column(run, "meta/reward"), "C2", "metas against each other")
        draw(axes, *column(run, "naive/ego_reward"), "C0", "meta against naive")
        draw(axes, *column(run, "naive/co_reward"), "C1", "naive against meta")
        axes.set(
            xlabel="meta updates",
            ylabel="reward per step",
            title=f"{title}\n(p_naive {agents.p_naive:g}, steps in {agents.space})",
        )
        rows[title] = _with_count(run)
        rows[title] |= {who: ending(run, f"naive/{who}_reward") for who in ("ego", "co")}
        rows[title]["cooperation of the first agent"] = {
            state: summary(jax.nn.sigmoid(logit))
            for state, logit in zip(STATES, load_state(run).params[:, 0].T, strict=True)
        }
        rows[title]["run"] = origin(run)
    figure.suptitle("The mixed pool of the analytical game")
    write(figure, output, rows, BAND)


SUBCOMMANDS = {
    "coala-fig3": fig3,
    "coala-fig4": fig4,
    "coala-fig5": fig5,
    "coala-fig6": fig6,
    "coala-fig7": fig7,
    "coala-fig9": fig9,
}


def _with_count(run: RunDir) -> dict[str, Any]:
    result = ending(run, "meta/reward")
    return result | {"seeds at 0.9 or more": int(sum(v >= 0.9 for v in result["seeds"]))}


def _fresh(run: RunDir, updates: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the first agent and of a fresh naive learner over its updates, [seeds, updates + 1] each."""
    config = run.load_config(AnalyticConfig).agents
    params = load_state(run).params[:, 0]
    starts = jax.random.normal(jax.random.key(2), (params.shape[0], 8, 5))

    def one(ego: jax.Array, first: jax.Array):
        return jax.vmap(lambda s: learning_curve(ego, s, config, updates))(first)

    own, theirs = jax.jit(jax.vmap(one))(params, starts)
    return np.asarray(own.mean(1)), np.asarray(theirs.mean(1))


def _cleanup(
    preset: str, kind: str, estimators: Sequence[str], seeds: int, runs: Path, output: Path
) -> None:
    # Who cleans is the question against a naive learner; between metas, which are alike, how evenly they share it.
    last = ("co_cleaned", "co-player cleaned per step")
    if kind == "meta":
        last = ("cleaned_gap", "cleaned per step, |difference| within a chain")
    shown = {
        "ego_reward": "reward per step",
        "ego_zapped": "zapped per step",
        "ego_cleaned": "cleaned per step",
        last[0]: last[1],
        "dirt": "dirty cells",
        "apples": "apples",
    }
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).reshape(-1)
    rows: dict[str, Any] = {}
    for i, (name, config) in enumerate(sampled_configs(preset, estimators).items()):
        run = trained(config, run_path(runs, config), seeds)
        for axes, (metric, label) in zip(panels, shown.items(), strict=True):
            draw(axes, *column(run, f"{kind}/{metric}"), f"C{i}", LABELS.get(name, name))
            axes.set(xlabel="meta updates", ylabel=label)
        kept = dict.fromkeys((*shown, "co_cleaned", "cleaned_gap"))
        rows[name] = {metric: ending(run, f"{kind}/{metric}", 1) for metric in kept}
        rows[name]["run"] = origin(run)
    who = {"naive": "meta agents against naive learners", "meta": "meta agents against each other"}
    figure.suptitle(f"CleanUp-lite: {who[kind]} (preset {preset})")
    write(figure, output, rows, BAND)
