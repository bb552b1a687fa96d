"""`internal-rl discover`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from internal_rl.commands.flags import (
    RunFlags,
    check_resumed,
    filled,
    parent_config,
    resumed_run,
    run_flags,
)
from internal_rl.config import DataConfig, DiscoverConfig, MetacontrollerConfig, RuntimeConfig


@dataclass
class Command(RunFlags):
    """Stage 2: discover abstract actions with a metacontroller on a frozen base model."""

    base: Path = Path()
    """Pretrain run to build on, trained or adopted."""
    base_seed: int = 0
    """Which of its seeds."""
    preset: str = ""
    """Preset for this stage's settings; default: those stored in --base."""
    seed: int = 0
    """The one seed of the run."""
    data: DataConfig = field(default_factory=DataConfig)
    metacontroller: MetacontrollerConfig = field(default_factory=MetacontrollerConfig)
    discover: DiscoverConfig = field(default_factory=DiscoverConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Fields of the named preset, of --base, or of the run that is resumed."""
    resumed = resumed_run(argv)
    return filled(Command, resumed.config if resumed else parent_config(argv, "discover", "base"))


def run(args: Command) -> None:
    """Train, or go on."""
    from internal_rl.pipeline import run_discover
    from internal_rl.runs.run_dir import open_run

    if args.resume:
        started = open_run(args.run, "discover")
        base, config = started.parent("pretrain"), started.config
    else:
        base = open_run(args.base, "pretrain")
        config = base.config
    names = ("seed", "data", "metacontroller", "discover", "runtime")
    config = dataclasses.replace(config, **{n: getattr(args, n) for n in names})
    check_resumed(args, config)
    made = run_discover(config, args.run, base, base_seed=args.base_seed, **run_flags(args))
    print(f"discover: done, in {made.path}")
