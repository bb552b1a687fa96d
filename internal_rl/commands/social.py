"""`internal-rl social train|analytic|evaluate|embedded|predictive`.

A preset (--preset) is a complete config; further flags change single fields.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from agents.learning_aware.analytic import AnalyticSettings
from agents.learning_aware.population import PoolSettings
from agents.learning_aware.predictive import PredictiveSettings
from configs import social as presets
from internal_rl.commands.family import run_family
from internal_rl.commands.flags import (
    RunFlags,
    check_output,
    check_resumed,
    flag,
    report,
    resumed_run,
    run_flags,
)
from internal_rl.config import RuntimeConfig
from internal_rl.errors import UserError
from internal_rl.social.config import (
    AnalyticConfig,
    EmbeddedConfig,
    GameConfig,
    NaiveConfig,
    PolicyConfig,
    PredictiveConfig,
    SocialConfig,
)


@dataclass
class Train(RunFlags):
    """Train a pool of meta agents against naive learners and each other in a sampled game."""

    preset: str = "ipd-mixed-tabular"
    """Named config to start from."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 0
    """Meta updates."""
    game: GameConfig = field(default_factory=GameConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    naive: NaiveConfig = field(default_factory=NaiveConfig)
    pool: PoolSettings = field(default_factory=PoolSettings)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Analytic(RunFlags):
    """Train memory-1 agents with exact gradients in the analytical prisoner's dilemma."""

    preset: str = "coala-fig3c"
    """Named config to start from."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 0
    """Meta updates."""
    agents: AnalyticSettings = field(default_factory=AnalyticSettings)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Evaluate:
    """Reward per inner episode and cooperation per state of a trained run, with intervals over seeds."""

    run: Path
    """Run of `social train` or `social analytic`."""
    output: Path | None = None
    """JSON file to write; default: evaluation.json inside --run."""
    overwrite: bool = False
    """Replace an existing output file."""
    episodes: int = 8
    """Sampled games: meta-episodes per agent and kind of co-player. Analytical game: fresh naive learners."""
    naive_updates: int = 400
    """Analytical game: updates of a fresh naive learner against the frozen agents."""
    seed: int = 0
    """Seed of the evaluation."""


@dataclass
class Embedded:
    """Embedded Bayesian agents against twins, exactly: play, beliefs and closed form side by side."""

    preset: str = "mupi-twin"
    """Named config to start from."""
    game: str = ""
    """A two-player, two-action matrix game, by name or your own payoffs as file.py:NAME."""
    alphas: tuple[float, ...] = ()
    """Prior weights of "the other runs my own policy"."""
    policies: Literal["open_loop", "half_defect", "memory_one"] = "open_loop"
    """All action sequences uniformly, the same with half of the mass on always-defect, or all memory-1 policies."""
    tremble: float = 0.0
    """memory_one: probability that a policy misses its action."""
    rounds: int = 0
    """Rounds played."""
    depth: int = 0
    """k: own choices that are maximised over before the mixture predicts itself; at most the horizon."""
    discount: float = 0.0
    """γ: 0 with a horizon of 1, above 0 with a longer one."""
    horizon: int = 0
    """Rounds that are valued, the present one included."""
    output: Path | None = None
    """JSON file to write."""
    overwrite: bool = False
    """Replace an existing output file."""


@dataclass
class Predictive(RunFlags):
    """Train two agents that improve on a sequence model's predictions of their games, in phases."""

    preset: str = "ppi-laptop"
    """Named config to start from."""
    parent: Path | None = None
    """Finished run of this command that agents.opponent frozen and agents.start parent take agents and games from, seed
    by seed."""
    seed: int = 0
    """The one seed of the run."""
    iterations: int = 0
    """Phases."""
    game: GameConfig = field(default_factory=GameConfig)
    agents: PredictiveSettings = field(default_factory=PredictiveSettings)
    embed: int = 0
    """Width of the embeddings."""
    hidden: int = 0
    """Width of the GRU."""
    gru_step: Literal["symbol", "round"] = "symbol"
    """What the GRU takes a step for: each of o_t, r_t, a_t, or the round."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def main(argv: Sequence[str]) -> int:
    """`argv` without `social`; returns the exit code. Raises UserError for the user's mistakes."""
    listed = [f"presets of {n}: {', '.join(presets.names(k))}" for n, k in _KINDS.items()]
    return run_family("social", COMMANDS, parse, listed, argv)


def parse(name: str, argv: Sequence[str]) -> Any:
    """Flags of one command, with the defaults of the named preset."""
    command, _ = COMMANDS[name]
    values: dict[str, Any] = {}
    if name in _KINDS:
        kind, resumed = _KINDS[name], resumed_run(argv)
        if resumed:
            config = resumed.load_config(kind)
        else:
            config = presets.get(flag(argv, "preset") or command.preset, kind)
            estimator = flag(argv, "pool.estimator")
            if estimator and isinstance(config, SocialConfig):
                # The paper's methods differ in more than the estimator; further flags still win.
                config = presets.with_estimator(config, estimator)
        fields = (f.name for f in dataclasses.fields(command))
        values = {n: getattr(config, n) for n in fields if hasattr(config, n)}
        values["preset"] = config.name
    if name != "embedded":
        values["run"] = tyro.MISSING
    return tyro.cli(
        command,
        prog=f"internal-rl social {name}",
        args=list(argv),
        default=command(**values),
        description=command.__doc__,
    )


def resolve(args: Train | Analytic | Embedded | Predictive) -> Any:
    """The config that the flags describe."""
    kind = _KINDS[type(args).__name__.lower()]
    names = {f.name for f in dataclasses.fields(kind)} - {"name"}
    chosen = {n: getattr(args, n) for n in names}
    return dataclasses.replace(presets.get(args.preset, kind), **chosen)


def _config(args: Train | Analytic | Predictive) -> Any:
    config = resolve(args)
    check_resumed(args, config, args.preset)
    return config


def _train(args: Train) -> None:
    from internal_rl.social.pipeline import run_social

    run = run_social(_config(args), args.run, **run_flags(args))
    print(f"social train: done, in {run.path}")


def _analytic(args: Analytic) -> None:
    from internal_rl.social.pipeline import run_analytic

    run = run_analytic(_config(args), args.run, **run_flags(args))
    print(f"social analytic: done, in {run.path}")


def _predictive(args: Predictive) -> None:
    from internal_rl.runs.run_dir import open_run
    from internal_rl.social.parents import STAGE
    from internal_rl.social.pipeline import run_predictive

    config = _config(args)
    try:
        parent = None if args.parent is None else open_run(args.parent)
    except UserError as error:
        raise UserError(f"parent: {error}") from None
    if args.resume and parent is not None:
        recorded = open_run(args.run).parent(STAGE).path
        if parent.path.resolve() != recorded:
            raise UserError(f"parent is {parent.path}; allowed with --resume: {recorded}")
    run = run_predictive(config, args.run, parent=parent, **run_flags(args))
    print(f"social predictive: done, in {run.path}")


def _evaluate(args: Evaluate) -> None:
    from internal_rl.runs.run_dir import open_run
    from internal_rl.social.evaluate import draw_run, evaluate_run

    run = open_run(args.run)
    output = args.output or run.path / "evaluation.json"
    check_output(output, args.overwrite)
    result = evaluate_run(
        run, episodes=args.episodes, naive_updates=args.naive_updates, seed=args.seed
    )
    report(result, output)
    for path in draw_run(run, result, run.figures_dir):
        print(path)


def _embedded(args: Embedded) -> None:
    from internal_rl.social.embedded import embedded_report

    if args.output is not None:
        check_output(args.output, args.overwrite)
    report(embedded_report(resolve(args)), args.output)


_KINDS: dict[str, type] = {
    "train": SocialConfig,
    "analytic": AnalyticConfig,
    "embedded": EmbeddedConfig,
    "predictive": PredictiveConfig,
}
COMMANDS: dict[str, tuple[type, Callable]] = {
    "train": (Train, _train),
    "analytic": (Analytic, _analytic),
    "evaluate": (Evaluate, _evaluate),
    "embedded": (Embedded, _embedded),
    "predictive": (Predictive, _predictive),
}
