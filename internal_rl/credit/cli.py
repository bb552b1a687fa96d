"""`internal-rl credit train|shadow|variance|exact`.

A preset (--preset) fixes world and training, a method (--method, --model) brings the learning rates
that were tuned for it, and further flags change single fields.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from agents.credit import CreditConfig, TrainConfig
from configs import credit as presets
from internal_rl.config import RuntimeConfig
from internal_rl.credit.config import CreditRunConfig, ShadowConfig, WorldConfig
from internal_rl.family import run_family
from internal_rl.flags import (
    RunFlags,
    check_output,
    check_resumed,
    flag,
    report,
    resumed_run,
    run_flags,
)

DEFAULT_PRESET = "cocoa-length-23"


@dataclass
class Choice:
    """What the defaults of all other flags follow from."""

    preset: str = DEFAULT_PRESET
    """Named config to start from."""
    method: str = "cocoa_reward"
    """Estimator; its tuned settings are the defaults of --credit.*."""
    model: Literal["learned", "exact"] = "learned"
    """Learn the estimator's model, or recompute it from the true MDP."""
    seed: int = 0
    """The one seed of the run."""
    world: WorldConfig = field(default_factory=WorldConfig)
    credit: CreditConfig = field(default_factory=CreditConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class _Run(RunFlags, Choice):
    run: Path = Path()
    """Run directory to make."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class Train(_Run):
    """Train a policy with one estimator."""


@dataclass
class Shadow(_Run):
    """Measure bias, variance and SNR of many estimators along the training of one."""

    shadow: ShadowConfig = field(default_factory=ShadowConfig)


@dataclass
class Variance(Choice):
    """Bias, variance and SNR of exact estimators at the untrained or uniform policy, by enumeration
    where there are few trajectories and by sampling elsewhere."""

    methods: tuple[str, ...] = ("reinforce", "hca_plus", "cocoa_reward")
    """Estimators, with exact models."""
    groups: tuple[int, ...] = ()
    """Tree only: COCOA with the reward refined into that many groups."""
    uniform: bool = True
    """Measure at the uniform tabular policy, else at the untrained network's."""
    output: Path | None = None
    """JSON file to write."""
    overwrite: bool = False
    """Replace an existing output file."""


@dataclass
class Exact(Choice):
    """Exact tables of an environment: size, value, and every estimator's expected gradient."""

    output: Path | None = None
    """JSON file to write."""
    overwrite: bool = False
    """Replace an existing output file."""


def main(argv: Sequence[str]) -> int:
    """`argv` without `credit`; returns the exit code. Raises UserError for the user's mistakes."""
    listed = [f"presets: {', '.join(presets.PRESETS)}"]
    return run_family("credit", COMMANDS, parse, listed, argv)


def parse(name: str, argv: Sequence[str]) -> Choice:
    """Flags of one command, with the defaults of the named preset and method."""
    command, _ = COMMANDS[name]
    resumed = resumed_run(argv)
    if resumed:
        config = resumed.load_config(CreditRunConfig)
    else:
        usual = "cocoa-shadow-23" if command is Shadow else DEFAULT_PRESET
        method, model = flag(argv, "method"), flag(argv, "model")
        config = presets.get(flag(argv, "preset") or usual, method, model)
    values = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(command)
        if hasattr(config, f.name)
    }
    values |= {n: getattr(config.credit, n) for n in ("method", "model")} | {"preset": config.name}
    if issubclass(command, _Run):
        values["run"] = tyro.MISSING
    return tyro.cli(
        command,
        prog=f"internal-rl credit {name}",
        args=list(argv),
        default=command(**values),
        description=command.__doc__,
    )


def resolve(args: Choice) -> CreditRunConfig:
    """The config that the flags describe."""
    names = {f.name for f in dataclasses.fields(CreditRunConfig)} - {"name"}
    chosen = {n: getattr(args, n) for n in names if hasattr(args, n)}
    return dataclasses.replace(presets.get(args.preset), **chosen)


def _config(args: _Run) -> CreditRunConfig:
    config = resolve(args)
    if args.resume:  # --method and --model brought no settings along: they can only be the run's
        named = dataclasses.replace(config.credit, method=args.method, model=args.model)
        config = dataclasses.replace(config, credit=named)
    check_resumed(args, config, args.preset)
    return config


def _train(args: Train) -> None:
    from internal_rl.credit.run import run_train

    run = run_train(_config(args), args.run, **run_flags(args))
    print(f"credit train: done, in {run.path}")


def _shadow(args: Shadow) -> None:
    from internal_rl.credit.run import run_shadow

    run = run_shadow(_config(args), args.run, **run_flags(args))
    print(f"credit shadow: done, in {run.path}")


def _variance(args: Variance) -> None:
    from internal_rl.credit.measure import variance_report

    if args.output is not None:
        check_output(args.output, args.overwrite)
    result = variance_report(resolve(args), args.methods, args.groups, uniform=args.uniform)
    report(result, args.output)


def _exact(args: Exact) -> None:
    from internal_rl.credit.measure import exact_report

    if args.output is not None:
        check_output(args.output, args.overwrite)
    report(exact_report(resolve(args)), args.output)


COMMANDS: dict[str, tuple[type[Choice], Callable]] = {
    "train": (Train, _train),
    "shadow": (Shadow, _shadow),
    "variance": (Variance, _variance),
    "exact": (Exact, _exact),
}
