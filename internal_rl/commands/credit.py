"""`internal-rl credit train|shadow|inspect|variance|exact`.

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
from internal_rl.credit.config import CreditRunConfig, ShadowConfig, WorldConfig
from internal_rl.errors import UserError

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
class Inspect:
    """Learned contribution coefficients of a run beside the exact ones."""

    run: Path
    """Run directory of `credit train` or `credit shadow`."""
    method: str = ""
    """Which estimator of a shadow run, main for the acting one; may be left out where only one learns a hindsight
    network (cocoa_reward, cocoa_feature, hca_plus and hca do)."""
    output: Path | None = None
    """JSON file to write."""
    overwrite: bool = False
    """Replace an existing output file."""


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


def parse(name: str, argv: Sequence[str]) -> Choice | Inspect:
    """Flags of one command, with the defaults of the named preset and method where it has any."""
    command, _ = COMMANDS[name]
    if command is Inspect:
        return tyro.cli(Inspect, prog="internal-rl credit inspect", args=list(argv))
    resumed = resumed_run(argv)
    if resumed:
        config = resumed.load_config(CreditRunConfig)
    else:
        usual = "cocoa-shadow-23" if command is Shadow else DEFAULT_PRESET
        method, model = _chosen(argv, "method"), _chosen(argv, "model")
        if not issubclass(command, _Run) and (method or model):
            named, value = ("method", method) if method else ("model", model)
            instead = "--methods" if command is Variance else "it reports all of them"
            raise UserError(
                f"{named} is {value!r}; allowed for credit {name}: not set, as it measures exact models "
                f"({instead})"
            )
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


def _chosen(argv: Sequence[str], name: str) -> str | None:
    """--method or --model, which --credit.method and --credit.model are other names of: the tuned settings come along."""
    short, long = flag(argv, name), flag(argv, f"credit.{name}")
    if short and long and short != long:
        raise UserError(f"--{name} is '{short}' and --credit.{name} '{long}'; allowed: one of them")
    return short or long


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


def _check_used(args: Choice, used: Sequence[str]) -> None:
    """Refuse settings of `credit` and `train` that a command would only ignore.

    Raises:
        UserError: one is not the preset's, and not among `used`.
    """
    usual = presets.get(args.preset)
    if (args.method, args.model) != (usual.credit.method, usual.credit.model):
        usual = presets.get(args.preset, args.method, args.model)
    for group in ("credit", "train"):
        for f in dataclasses.fields(getattr(usual, group)):
            name, value = f"{group}.{f.name}", getattr(getattr(args, group), f.name)
            expected = getattr(getattr(usual, group), f.name)
            if name not in used and value != expected:
                raise UserError(
                    f"{name} is {value!r}; allowed here: {expected!r}, since nothing would change"
                )


def _train(args: Train) -> None:
    from internal_rl.credit.run import run_train

    run = run_train(_config(args), args.run, **run_flags(args))
    print(f"credit train: done, in {run.path}")


def _shadow(args: Shadow) -> None:
    from internal_rl.credit.run import run_shadow

    config = _config(args)
    if not args.resume and args.credit.model == "exact":
        # Shadowed models bring their own rates: these would be those of the acting model alone.
        learned = ("model_rate", "trace", "mask_zero_reward", "hindsight_clip")
        names = {f"credit.{f.name}" for f in dataclasses.fields(CreditConfig)}
        names -= {f"credit.{name}" for name in learned}
        train = {f"train.{f.name}" for f in dataclasses.fields(TrainConfig)}
        _check_used(args, (*names, *train))
    run = run_shadow(config, args.run, **run_flags(args))
    print(f"credit shadow: done, in {run.path}")


def _inspect(args: Inspect) -> None:
    from internal_rl.credit.inspection import inspect_run
    from internal_rl.runs.run_dir import open_run

    run = open_run(args.run)
    if args.output is not None:
        check_output(args.output, args.overwrite)
    report(inspect_run(run, args.method), args.output)


def _variance(args: Variance) -> None:
    from internal_rl.credit.measure import variance_report

    if args.output is not None:
        check_output(args.output, args.overwrite)
    used = ("epsilon", "first_state_only", "eval_episodes", "policy_width")
    if args.uniform:  # mixing changes nothing, and there is no network
        used = ("first_state_only", "eval_episodes")
    _check_used(args, ("credit.perturbation", *(f"train.{name}" for name in used)))
    result = variance_report(resolve(args), args.methods, args.groups, uniform=args.uniform)
    report(result, args.output)


def _exact(args: Exact) -> None:
    from internal_rl.credit.measure import exact_report

    if args.output is not None:
        check_output(args.output, args.overwrite)
    _check_used(args, ("credit.perturbation",))
    report(exact_report(resolve(args)), args.output)


COMMANDS: dict[str, tuple[type[Choice] | type[Inspect], Callable]] = {
    "train": (Train, _train),
    "shadow": (Shadow, _shadow),
    "inspect": (Inspect, _inspect),
    "variance": (Variance, _variance),
    "exact": (Exact, _exact),
}
