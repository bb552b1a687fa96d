"""`internal-rl credit train|shadow|variance|exact`.

A preset (--preset) fixes world and training, a method (--method, --model) brings the learning rates
that were tuned for it, and further flags change single fields.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from agents.credit import CreditConfig, TrainConfig
from configs import credit as presets
from internal_rl.cli import RunFlags
from internal_rl.config import RuntimeConfig
from internal_rl.credit.config import CreditRunConfig, ShadowConfig, WorldConfig
from internal_rl.errors import UserError
from internal_rl.family import run_family

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
    from internal_rl.cli import _flag

    command, _ = COMMANDS[name]
    preset = _flag(argv, "preset") or ("cocoa-shadow-23" if command is Shadow else DEFAULT_PRESET)
    method, model = _flag(argv, "method"), _flag(argv, "model")
    config = presets.get(preset, method, model)
    values = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(command)
        if hasattr(config, f.name)
    }
    values |= {"preset": preset, "method": config.credit.method, "model": config.credit.model}
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
    return dataclasses.replace(presets.PRESETS[args.preset], **chosen)


def _train(args: Train) -> None:
    from internal_rl.credit.run import run_train

    run = run_train(resolve(args), args.run, **_flags(args))
    print(f"credit train: done, in {run.path}")


def _shadow(args: Shadow) -> None:
    from internal_rl.credit.run import run_shadow

    run = run_shadow(resolve(args), args.run, **_flags(args))
    print(f"credit shadow: done, in {run.path}")


def _variance(args: Variance) -> None:
    from internal_rl.credit.measure import variance_report

    _report(
        variance_report(resolve(args), args.methods, args.groups, uniform=args.uniform),
        args.output,
        args.overwrite,
    )


def _exact(args: Exact) -> None:
    from internal_rl.credit.measure import exact_report

    _report(exact_report(resolve(args)), args.output, args.overwrite)


def _report(result: dict, output: Path | None, overwrite: bool) -> None:
    from internal_rl.runs.run_dir import write_json

    if output is not None:
        if output.exists() and not overwrite:
            raise UserError(
                f"{output} exists; choose another name, or pass --overwrite to replace it"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, result)
    print(json.dumps(result, indent=2))


def _flags(args: _Run) -> dict:
    return {n: getattr(args, n) for n in ("seeds", "resume", "overwrite", "progress")}


COMMANDS: dict[str, tuple[type[Choice], Callable]] = {
    "train": (Train, _train),
    "shadow": (Shadow, _shadow),
    "variance": (Variance, _variance),
    "exact": (Exact, _exact),
}
