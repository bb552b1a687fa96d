"""Predictive policy improvement (arXiv 2602.16301): trains what is missing, draws it beside the paper's values.

The paper's numbers are read off its figures (± 0.03). Runs are kept under `--runs` and continued where they stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agents.learning_aware import predictive, predictive_phases
from agents.learning_aware.bayes_tables import bayes_tables, best_response_value
from agents.learning_aware.predictive import Games, PredictiveSettings, Predictor
from configs import social as presets
from envs.social.matrix import IteratedMatrixGame
from internal_rl.errors import UserError
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir, open_run
from internal_rl.social.build import make_matrix_game
from internal_rl.social.config import PredictiveConfig, SocialConfig
from internal_rl.social.evaluate import summary
from internal_rl.social.pipeline import make_predictor
from reproductions.social_figures import BAND, column, draw, ending, origin, trained, write

Scale = Literal["smoke", "laptop", "paper"]
Pool = Literal["mixed", "identity", "no_tables", "tables_only"]
POOLS: dict[Pool, dict[str, Any]] = {
    "mixed": {},
    "identity": {"identity": True},
    "no_tables": {"tabular_share": 0.0},
    "tables_only": {"tabular_share": 1.0},
}
MEASURES = ("reward", "late_reward", "cooperation")
PHASES = {"identity": 8, "no_tables": 8, "tables_only": 4}
"""Of the laptop preset's 18, to save time."""
TITLES: dict[Pool, str] = {
    "mixed": "mixed pool",
    "identity": "told whom they face",
    "no_tables": "without tables",
    "tables_only": "tables only",
}
META = {"mixed": 0.92, "identity": 0.1, "no_tables": 0.15}
"""The paper's last phase: agents against each other, reward per round."""
MIXED_CURVE = ((1, 0.05), (5, 0.05), (8, 0.5), (12, 0.9), (30, 0.92))
TABLES = {"mixed": 1.0, "identity": 1.04, "tables_only": 1.0}
"""Its last phase against tables."""
A2C = {"mixed": (0.97, 1.03), "no_tables": (0.0, None)}
"""Its A2C agents at the end: against each other, against tables."""


def phases(
    scale: Scale = "laptop",
    pools: tuple[Pool, ...] = ("mixed", "identity", "no_tables", "tables_only"),
    seeds: int = 5,
    ablation_seeds: int = 3,
    train: bool = True,
    runs: Path = Path("runs/ppi"),
    output: Path = Path("docs/results/ppi-phases"),
) -> None:
    """Reward and cooperation by phase: mixed pool, identity given, without tables, tables only.

    Args:
        scale: smoke takes seconds and shows nothing, laptop minutes for each seed and pool, paper is for an accelerator.
        pools: what is trained and drawn.
        seeds: of the mixed pool, trained at once.
        ablation_seeds: of the other pools.
        train: start and continue runs; otherwise they are drawn as they are, unfinished ones, too.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    check_output(scale, output)
    figure = Figure(figsize=(5 * len(pools), 7.6), layout="constrained")
    panels = figure.subplots(2, len(pools), squeeze=False, sharex="col", sharey="row")
    rows: dict[str, Any] = {}
    for (reward, cooperation), pool in zip(panels.T, pools, strict=True):
        config = pool_config(scale, pool)
        number = seeds if pool == "mixed" else ablation_seeds
        path = runs / f"{config.name}-{pool}"
        run = trained(config, path, number) if train else open_run(path, "social_predictive")
        rows[pool] = {"run": origin(run), "phases": last_step(run)}
        for metric, label, colour in (
            ("meta", "agents against each other", "C2"),
            ("tabular/ego", "agent against tables", "C0"),
            ("tabular/co", "tables against agent", "C1"),
        ):
            share = config.agents.tabular_share
            if share == (1.0 if metric == "meta" else 0.0):
                continue
            draw(reward, *column(run, f"{metric}_reward"), colour, label)
            draw(cooperation, *column(run, f"{metric}_cooperation"), colour, label)
            rows[pool][label] = {what: ending(run, f"{metric}_{what}", 1) for what in MEASURES}
        if pool == "mixed":
            # The paper's phases are many times ours in games; only the shape can be compared.
            reward.plot(*zip(*MIXED_CURVE, strict=True), "k.:", label="paper, each other")
        elif pool in META:
            reward.axhline(META[pool], color="k", linestyle=":", label="paper, each other")
        if pool in TABLES:
            reward.axhline(TABLES[pool], color="C0", linestyle=":", label="paper, against tables")
        reward.set(title=TITLES[pool], xlim=(0.5, config.iterations + 0.5), ylim=(-1.35, 1.2))
        cooperation.set(xlabel="phase", ylim=(-0.02, 1.02))
        cooperation.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].set_ylabel("reward per round")
    panels[1, 0].set_ylabel("share of cooperation")
    figure.suptitle(f"Predictive policy improvement (preset ppi-{scale})")
    write(figure, output, rows, BAND)


def pool_config(scale: Scale, pool: Pool) -> PredictiveConfig:
    """The preset of a scale in one of the pools."""
    config = presets.get(f"ppi-{scale}", PredictiveConfig)
    count = config.iterations
    if scale == "laptop":
        count = PHASES.get(pool, count)
    agents = replace(config.agents, phases=count, **POOLS[pool])
    return replace(config, iterations=count, agents=agents)


def a2c(
    scale: Scale = "laptop",
    shares: tuple[float, ...] = (0.5, 0.0),
    seeds: int = 3,
    train: bool = True,
    runs: Path = Path("runs/ppi"),
    output: Path = Path("docs/results/ppi-a2c"),
) -> None:
    """The A2C baseline by iteration, in the mixed pool and without tables.

    Args:
        scale: smoke takes seconds and shows nothing, laptop minutes, paper is for an accelerator.
        shares: of games against tables; the paper's figure has 0.5 and 0.
        seeds: trained at once.
        train: start and continue runs; otherwise they are drawn as they are, unfinished ones, too.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    check_output(scale, output)
    for share in shares:
        if not 0 <= share <= 1:
            raise UserError(f"shares holds {share}; allowed: in [0, 1]")
    figure = Figure(figsize=(6 * len(shares), 4.4), layout="constrained")
    rows: dict[str, Any] = {}
    panels = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    for axes, share in zip(panels, shares, strict=True):
        config = presets.get(f"ppi-a2c-{scale}", SocialConfig)
        config = replace(config, pool=replace(config.pool, p_naive=share, p_meta=1 - share))
        path = runs / f"{config.name}-{share:g}"
        run = trained(config, path, seeds) if train else open_run(path, "social")
        row: dict[str, Any] = {"run": origin(run), "iterations": last_step(run)}
        named: Sequence[tuple[str, str, str, float]] = (
            ("meta/ego", "agents against each other", "C2", 1 - share),
            ("naive/ego", "agent against tables", "C0", share),
        )
        paper = A2C["mixed" if share else "no_tables"]
        for (metric, label, colour, weight), value in zip(named, paper, strict=True):
            if weight:
                draw(axes, *column(run, f"{metric}_reward"), colour, label)
                row[label] = {
                    "reward": ending(run, f"{metric}_reward"),
                    "cooperation": ending(run, f"{metric}_action0"),
                }
                axes.axhline(value, color=colour, linestyle=":", label=f"paper's end, {label}")
        rows["mixed" if share else "no tables"] = row
        title = f"tables in {share:.0%} of the games"
        axes.set(title=title, xlabel="iterations", ylim=(-1.0, 1.2))
    panels[0].set_ylabel("reward per round")
    figure.suptitle(f"A2C baseline (preset ppi-a2c-{scale})")
    write(figure, output, rows, BAND)


BETAS = (0.01, 0.1, 1.0, 10.0, 100.0)
TIT_FOR_TAT = (1.0, 1.0, 0.0, 1.0, 0.0)
"""P(C) after start, CC, CD, DC, DD, own action first."""


def limits(
    scale: Scale = "laptop",
    games: int = 512,
    fits: int = 3,
    output: Path = Path("docs/results/ppi-limits"),
) -> None:
    """What limits the first phase: β, the noise of Q̂, or the model; against the exact predictor of random tables.

    Args:
        scale: whose game, network and fit are looked at; smoke shows nothing.
        games: played for each number.
        fits: seeds of the fitted models.
        output: path of the PNG and the JSON, without suffix.
    """
    check_output(scale, output)
    for name, value in (("games", games), ("fits", fits)):
        if value < 1:
            raise UserError(f"{name} is {value}; allowed: at least 1")
    config = presets.get(f"ppi-{scale}", PredictiveConfig)
    game, cfg = make_matrix_game(config.game), config.agents
    exact = bayes_tables(game)
    tables = jax.nn.sigmoid(predictive.tabular_logits(jax.random.key(1), 20_000, 5))
    best = float(jax.jit(lambda t: best_response_value(t, game))(tables).mean())
    held_out = _table_games(jax.random.key(2), game, 4096)
    entropy = float(jax.jit(lambda g: exact.loss((), g))(held_out))
    rows: dict[str, Any] = {
        "best response to known tables": best,
        "exact log-loss": entropy,
        "fitted": {},
        "exact by beta": {},
        "exact by rollouts": {},
    }
    figure = Figure(figsize=(16, 4.4), layout="constrained")
    by_beta, by_rollouts, by_round = figure.subplots(1, 3)
    against_tables = _against_tables(exact, cfg, game, games)
    for beta in BETAS:
        rows["exact by beta"][beta] = against_tables((), beta)
    for rollouts in (2, 8, 32):
        against_tables = _against_tables(exact, replace(cfg, rollouts=rollouts), game, games)
        rows["exact by rollouts"][rollouts] = against_tables((), cfg.beta)
    for axes, name in ((by_beta, "exact by beta"), (by_rollouts, "exact by rollouts")):
        x = [float(key) for key in rows[name]]
        for i, what in enumerate(("reward", "cooperation")):
            axes.plot(x, [row[what] for row in rows[name].values()], f"C{i}o-", label=what)
        axes.axhline(best, color="0.3", linestyle="--", label="best response to known tables")
        axes.axhline(1.0, color="C0", linestyle=":", label="paper's first phase, reward")
        axes.axhline(0.06, color="C1", linestyle=":", label="paper's first phase, cooperation")
        axes.set_xscale("log")
    by_beta.set(xlabel="β", title="exact predictor against random tables", ylabel="per round")
    by_rollouts.set(xlabel="rollouts per action", title=f"the same, β = {cfg.beta:g}")

    curves = {"exact predictor": (exact, [()])}
    for step in dict.fromkeys(("symbol", config.gru_step)):
        model = make_predictor(replace(config, gru_step=step), game)
        params = []
        for seed in range(fits):
            memory = _table_games(jax.random.key(10 + seed), game, cfg.pretrain_games)
            fit = jax.jit(
                lambda k, m, model=model: predictive_phases.fit(k, model, m, _count(m), cfg)[0]
            )
            params.append(fit(jax.random.key(seed), memory))
        loss = jax.jit(model.loss)
        against_tables = _against_tables(model, cfg, game, games)
        rows["fitted"][step] = {
            "excess log-loss": summary([float(loss(p, held_out)) - entropy for p in params]),
            "against tables": [against_tables(p, cfg.beta) for p in params],
        }
        curves[f"fitted, a step per {step}"] = (model, params)
    for i, (label, (model, params)) in enumerate(curves.items()):
        shares = np.stack([_against_tit_for_tat(model, p, cfg, game, games) for p in params])
        rows.setdefault("cooperation with tit-for-tat, by tenth of the game", {})[label] = [
            round(float(part.mean()), 3)
            for part in np.array_split(shares.mean(0), min(10, shares.shape[1]))
        ]
        draw(by_round, np.arange(1, shares.shape[1] + 1), shares, f"C{i}", label)
    by_round.set(xlabel="round", ylabel="share of cooperation", title="against tit-for-tat")
    figure.suptitle(f"The first phase (preset ppi-{scale})")
    write(figure, output, rows)


def _against_tables(
    model: Predictor, cfg: PredictiveSettings, game: IteratedMatrixGame, games: int
) -> Callable[[Any, float], dict[str, float]]:
    """(parameters, β) → reward per round and cooperation of an agent against random tables; compiled once."""

    @jax.jit
    def play(key: jax.Array, params: Any, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Traced: every β is the same program.
        changed = replace(cfg, beta=beta)  # pyright: ignore[reportArgumentType]
        agent = predictive.learning_player(model, params, game, changed, games)
        table = predictive.tabular_player(jax.random.fold_in(key, 1), game, games)
        played = predictive.play(key, game, (agent, table), games)
        return jnp.mean(played.reward[0, :, 1:]), jnp.mean(played.action[0] == 0)

    def measure(params: Any, beta: float) -> dict[str, float]:
        reward, cooperation = play(jax.random.key(3), params, jnp.float32(beta))
        return {"reward": float(reward), "cooperation": float(cooperation)}

    return measure


def _against_tit_for_tat(
    model: Predictor, params: Any, cfg: PredictiveSettings, game: IteratedMatrixGame, games: int
) -> np.ndarray:
    """Share of cooperation of an agent in every round [T]."""

    def act(key: jax.Array, carry: Any, obs: jax.Array, reward: jax.Array, time: jax.Array):
        del key, reward, time
        return carry, (jnp.asarray(TIT_FOR_TAT)[obs] < 0.5).astype(jnp.int32)

    def play(key: jax.Array) -> jax.Array:
        agent = predictive.learning_player(model, params, game, cfg, games)
        played = predictive.play(key, game, (agent, (act, ())), games)
        return jnp.mean(played.action[0] == 0, axis=0)

    return np.asarray(jax.jit(play)(jax.random.key(4)))


SUBCOMMANDS = {"ppi-phases": phases, "ppi-a2c": a2c, "ppi-limits": limits}


def check_output(scale: Scale, output: Path) -> None:
    """Raise `UserError` if a smoke run would overwrite a measured figure."""
    if scale == "smoke" and output.resolve().parent == Path("docs/results").resolve():
        raise UserError(
            f"output is {output} with scale smoke; allowed: another folder, this one holds measured figures"
        )


def _table_games(key: jax.Array, game: IteratedMatrixGame, count: int) -> Games:
    """Games between random tables, from one side."""

    def play(key: jax.Array) -> Games:
        one, two, rounds = jax.random.split(key, 3)
        first, second = (predictive.tabular_player(k, game, count) for k in (one, two))
        return jax.tree.map(lambda x: x[0], predictive.play(rounds, game, (first, second), count))

    return jax.jit(play)(key)


def last_step(run: RunDir) -> int:
    """Newest logged step of a run."""
    return int(read_metrics(run)["step"][-1])


def _count(games: Games) -> jax.Array:
    return jnp.int32(games.action.shape[0])
