"""The three steps of predictive policy improvement (arXiv 2602.16301): against tables, a frozen agent, each other.

Step 1 is the pool `tables_only` of `ppi-phases`, whose run is used where it exists. Step 2 trains a new agent against
each frozen agent of step 1; in step 3 both new agents go on against each other. The paper's numbers are read off its
figures (± 0.03).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agents.learning_aware.predictive import learning_player, play
from agents.learning_aware.predictive_phases import AGENTS
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir, open_run
from internal_rl.social.build import make_matrix_game
from internal_rl.social.config import PredictiveConfig
from internal_rl.social.evaluate import summary
from internal_rl.social.pipeline import load_predictive, make_predictor
from reproductions.ppi import MEASURES, Scale, check_output, last_step, pool_config
from reproductions.social_figures import BAND, column, draw, ending, origin, trained, write

CHANGES: dict[int, dict[str, Any]] = {
    2: {"tabular_share": 0.0, "opponent": "frozen"},
    3: {"tabular_share": 0.0, "start": "parent"},
}
"""Of the preset's agents; step 1 is a pool of `ppi-phases`."""
PHASES = {2: 8, 3: 10}
"""Of the laptop preset's 18, to save time."""
TITLES = {
    1: "step 1: tables only",
    2: "step 2: a new agent against a frozen one",
    3: "step 3: two of those on each other",
}
SIDES = {
    1: {"tabular/ego": "agent against tables", "tabular/co": "tables against agent"},
    2: {"frozen/ego": "new agent against frozen", "frozen/co": "frozen agent against new"},
    3: {"meta": "agents against each other"},
}
COLOURS = ("C0", "C1")
PAPER: dict[str, dict[str, float]] = {
    "tabular/ego": {"reward": 1.0, "cooperation": 0.07},
    "tabular/co": {"reward": -0.4, "cooperation": 0.53},
    "frozen/ego": {"reward": 0.88, "late_reward": 1.05, "cooperation": 0.45},
    "frozen/co": {"reward": 0.23, "late_reward": 0.2, "cooperation": 0.66},
    "meta": {"reward": 0.95},
}
"""Last phases of the paper; step 3 is there by phase 10."""
DRIFT = (0.1, 0.18)
"""Cooperation in the first and the last round of two step-2 agents that meet for the first time, in the paper."""


def steps(
    scale: Scale = "laptop",
    seeds: int = 3,
    games: int = 256,
    train: bool = True,
    runs: Path = Path("runs/ppi"),
    output: Path = Path("docs/results/ppi-steps"),
) -> None:
    """Reward and cooperation by phase of steps 1 to 3, and by round of the agents that come out of steps 2 and 3.

    Args:
        scale: smoke takes seconds and shows nothing, laptop minutes for each seed and step, paper is for an accelerator.
        seeds: trained at once; seed s of a step builds on seed s of the step before.
        games: played by each pair of agents for the curves by round.
        train: start and continue runs; otherwise they are drawn as they are, unfinished ones, too.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    check_output(scale, output)
    for name, value in (("seeds", seeds), ("games", games)):
        if value < 1:
            raise UserError(f"{name} is {value}; allowed: at least 1")
    figure = Figure(figsize=(20, 7.6), layout="constrained")
    panels = figure.subplots(2, 4, sharex="col")
    rows: dict[str, Any] = {}
    made: dict[int, RunDir] = {}
    for step, (reward, cooperation) in zip(TITLES, panels.T, strict=False):
        config, path = _run_of(step, scale, runs)
        run = made[step] = (
            trained(config, path, seeds, parent=made.get(step - 1))
            if train
            else open_run(path, "social_predictive")
        )
        rows[TITLES[step]] = {"run": origin(run), "phases": last_step(run)}
        for colour, (metric, label) in zip(COLOURS, SIDES[step].items(), strict=False):
            paper = PAPER[metric]
            for axes, what in ((reward, "reward"), (cooperation, "cooperation")):
                draw(axes, *column(run, f"{metric}_{what}"), colour, label)
                if what in paper:
                    axes.axhline(paper[what], color=colour, linestyle=":", label=f"paper, {label}")
            ours = {what: ending(run, f"{metric}_{what}", 1) for what in MEASURES}
            rows[TITLES[step]][label] = ours | {"paper": paper}
        reward.set(title=TITLES[step], xlim=(0.5, config.iterations + 0.5), ylim=(-1.35, 1.4))
        cooperation.set(xlabel="phase", ylim=(-0.02, 1.02))
        cooperation.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].set_ylabel("reward per round")
    panels[1, 0].set_ylabel("share of cooperation")
    rows["by tenth of the game"] = _draw_rounds(panels[:, 3], made[2], made[3], games)
    figure.suptitle(f"Predictive policy improvement in three steps (preset ppi-{scale})")
    write(figure, output, rows, BAND)


def _run_of(step: int, scale: Scale, runs: Path) -> tuple[PredictiveConfig, Path]:
    """Config and place of a step's run."""
    config = pool_config(scale, "tables_only")
    if step == 1:
        return config, runs / f"{config.name}-tables_only"
    config = pool_config(scale, "mixed")
    count = PHASES[step] if scale == "laptop" else config.iterations
    agents = replace(config.agents, phases=count, **CHANGES[step])
    return replace(config, iterations=count, agents=agents), runs / f"{config.name}-step{step}"


def _draw_rounds(
    panels: Sequence[Axes], second: RunDir, third: RunDir, games: int
) -> dict[str, Any]:
    """Curves by round of the agents as they come out of steps 2 and 3; summaries of them by tenth of the game.

    Args:
        panels: of reward and of cooperation.
        second, third: runs of steps 2 and 3.
        games: of each pair of agents.
    """
    reward, cooperation = panels
    before, after = load_predictive(second), load_predictive(third)
    play_rounds = _rounds(second.load_config(PredictiveConfig), games)
    new, frozen = _each(before.params), _each(before.opponent)
    pairs = [play_rounds(ego, co) for ego, co in zip(new, frozen, strict=True)]
    rewards, shares = (np.mean(x, axis=0) for x in zip(*pairs, strict=True))  # [2, S, T]
    tenths: dict[str, Any] = {}
    rounds = np.arange(1, rewards.shape[2] + 1)
    late = rounds[-max(1, len(rounds) // 5) :]
    for i, (metric, label) in enumerate(SIDES[2].items()):
        draw(reward, rounds, rewards[i], COLOURS[i], label)
        draw(cooperation, rounds, shares[i], COLOURS[i], label)
        value = PAPER[metric]["late_reward"]
        reward.plot(late[[0, -1]], [value] * 2, f"{COLOURS[i]}:", label=f"paper, late, {label}")
        tenths[f"{label}, reward"] = _by_tenth(rewards[i])
        tenths[f"{label}, cooperation"] = _by_tenth(shares[i])
    meetings = {"before step 3": (new, "C4"), "after step 3": (_each(after.params), "C2")}
    for label, (agents, colour) in meetings.items():
        _, shares = play_rounds(*agents)
        share = shares.mean(0)  # of both agents, [S, T]
        draw(cooperation, rounds, share, colour, f"each other, {label}")
        tenths[f"each other, {label}, cooperation"] = _by_tenth(share)
    cooperation.plot(rounds[[0, -1]], DRIFT, "C4:", label="paper, each other, before step 3")
    reward.set(title="in the game", ylim=(-1.35, 1.4))
    cooperation.set(xlabel="round", ylim=(-0.02, 1.02))
    return tenths


def _each(params: Any) -> list[Any]:
    """Leaves [S, P, ...] → those of each agent, [S, ...]."""
    return [jax.tree.map(lambda x, i=i: x[:, i], params) for i in range(AGENTS)]


def _rounds(config: PredictiveConfig, games: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(parameters of an agent and of its co-player, leaves [S, ...]) → mean reward and cooperation, both [2, S, T]."""
    game = make_matrix_game(config.game)
    model = make_predictor(config, game)

    def one(key: jax.Array, ego: Any, co: Any) -> tuple[jax.Array, jax.Array]:
        first, second = (learning_player(model, p, game, config.agents, games) for p in (ego, co))
        played = play(key, game, (first, second), games)
        return played.reward[:, :, 1:].mean(1), (played.action == 0).mean(1)

    every_seed = jax.jit(jax.vmap(one, out_axes=1))

    def of_pair(ego: Any, co: Any) -> tuple[np.ndarray, np.ndarray]:
        keys = jax.random.split(jax.random.key(5), jax.tree.leaves(ego)[0].shape[0])
        reward, cooperation = every_seed(keys, ego, co)
        return np.asarray(reward), np.asarray(cooperation)

    return of_pair


def _by_tenth(values: np.ndarray) -> list[dict[str, Any]]:
    """Summaries over seeds of [S, T] values, for each tenth of the rounds (or each round, if there are fewer)."""
    parts = np.array_split(values, min(10, values.shape[1]), axis=1)
    return [summary(part.mean(1)) for part in parts]


SUBCOMMANDS = {"ppi-steps": steps}
