"""Credit assignment over abstract steps on the held-out task, against the trajectory advantage.

There is no published figure. Runs are kept and continued where they were interrupted.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agents.credit.config import SampledCreditConfig, check_sampled
from internal_rl.errors import UserError
from internal_rl.pipeline import run_reinforce
from internal_rl.runs.cache import enable_compilation_cache
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir, is_run, open_run, write_json
from internal_rl.runs.statistics import stratified_bootstrap_ci

METHODS = (
    "trajectory",
    "reinforce",
    "advantage",
    "trajectory_cv",
    "q_critic",
    "cocoa_reward",
    "cocoa_reward/gaussian",
    "cocoa_reward/gaussian/512",
)


def credit_abstract(
    parent: Path,
    methods: tuple[str, ...] = METHODS,
    distractors: tuple[float, ...] = (0.0, 0.1),
    iterations: int = 0,
    seeds: int = 5,
    runs: Path = Path("runs/credit-abstract"),
    output: Path = Path("docs/results/credit-abstract"),
) -> None:
    """Success on the held-out tasks while training π(z), by credit assignment, with and without distractor rewards.

    Args:
        parent: discover run to build on; its config is used.
        methods: as for `internal-rl reinforce --credit`, or METHOD/HINDSIGHT, or METHOD/HINDSIGHT/REPLAY for
            the config's fields of these names; left out, they are density_ratio and 0.
        distractors: one panel each; 0 is the plain task.
        iterations: of each run; 0: as in the parent's config.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    enable_compilation_cache()
    built_on = open_run(parent, "discover")
    credit = {name: _credit(built_on, name) for name in methods}
    figure = Figure(figsize=(6 * len(distractors), 4.6), layout="constrained")
    panels = figure.subplots(1, len(distractors), squeeze=False)[0]
    rows: dict[str, Any] = {}
    for axes, distractor in zip(panels, distractors, strict=True):
        for i, method in enumerate(methods):
            path = runs / f"distractor-{distractor:g}" / method.replace("/", "-")
            run = _train(built_on, path, credit[method], distractor, iterations, seeds)
            metrics = read_metrics(run)
            x, y = metrics["step"], metrics["success"]
            y = y[:, None] if y.ndim == 1 else y
            low, high = np.percentile(y, (25, 75), axis=1)
            # The same in every figure, whatever else is drawn.
            colour = f"C{METHODS.index(method) if method in METHODS else len(METHODS) + i}"
            axes.plot(x, y.mean(1), color=colour, label=method, lw=2)
            axes.plot(x, y, color=colour, alpha=0.5, lw=0.8, ls="--")
            axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            rows[f"{method} {distractor:g}"] = {
                "final success": _summary(y[-1]),
                "mean over training": _summary(y.mean(0)),
                "seeds": y.shape[1],
                "run": run.info["git"],
            }
        axes.set(xlabel="iterations", ylabel="success", title=f"distractor reward {distractor:g}")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.25)
    panels[-1].legend(fontsize="small")
    figure.supxlabel(
        f"line: mean; band: quartiles; dashed: each of {seeds} seeds",
        fontsize="small",
        color="0.3",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output.with_suffix(".png"), dpi=130)
    write_json(output.with_suffix(".json"), rows)
    print(json.dumps(rows, indent=2))
    print(output.with_suffix(".png"))


def _credit(parent: RunDir, name: str) -> SampledCreditConfig:
    """The parent's other settings with METHOD/HINDSIGHT/REPLAY."""
    method, *rest = name.split("/")
    if len(rest) > 2 or not all(word.isdecimal() for word in rest[1:]):
        raise UserError(
            f"methods has {name!r}; allowed: METHOD, METHOD/HINDSIGHT, METHOD/HINDSIGHT/REPLAY"
        )
    changes: dict[str, Any] = {"method": method, "hindsight": "density_ratio", "replay": 0}
    changes.update(zip(("hindsight", "replay"), [*rest[:1], *map(int, rest[1:])], strict=False))
    found = replace(parent.config.reinforce.credit, **changes)
    try:
        check_sampled(found)
    except ValueError as error:
        raise UserError(f"methods has {name!r}: {error}") from None
    return found


def _train(
    parent: RunDir,
    path: Path,
    credit: SampledCreditConfig,
    distractor: float,
    iterations: int,
    seeds: int,
) -> RunDir:
    if is_run(path):
        run = RunDir(path)
        if run.info["num_seeds"] != seeds:
            raise UserError(f"{path} has {run.info['num_seeds']} seeds; allowed here: {seeds}")
        if run.config.reinforce.credit != credit:
            raise UserError(
                f"{path} has other settings of credit; choose another folder with --runs"
            )
        if run.info["status"] == "done":
            return run
        return run_reinforce(run.config, path, parent, seeds=seeds, resume=True)
    config = parent.config
    settings = replace(
        config.reinforce,
        method="internal",
        credit=credit,
        distractor_reward=distractor,
        iterations=iterations or config.reinforce.iterations,
    )
    return run_reinforce(replace(config, reinforce=settings), path, parent, seeds=seeds)


def _summary(values: np.ndarray) -> dict[str, Any]:
    low, high = stratified_bootstrap_ci(values, np.mean)
    return {"mean": float(values.mean()), "ci95": [low, high]}


SUBCOMMANDS = {"credit-abstract": credit_abstract}
