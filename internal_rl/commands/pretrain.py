"""`internal-rl pretrain`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import configs
from internal_rl.commands.flags import (
    DEFAULT_PRESET,
    RunFlags,
    check_resumed,
    filled,
    preset,
    resumed_run,
    run_flags,
)
from internal_rl.config import (
    BaseModelConfig,
    DataConfig,
    EnvConfig,
    ModelConfig,
    PinpadConfig,
    PretrainConfig,
    RuntimeConfig,
)


@dataclass
class Command(RunFlags):
    """Stage 1: pretrain a base model on unlabelled expert behaviour."""

    preset: str = DEFAULT_PRESET
    """Named config to start from, or path/to/file.py:NAME of your own; the flags below change single fields."""
    seed: int = 0
    """The one seed of the run."""
    env: EnvConfig = field(default_factory=PinpadConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: BaseModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Fields of the named preset, or of the run that is resumed."""
    resumed = resumed_run(argv)
    if resumed is None:
        return filled(Command, preset(argv))
    return filled(Command, resumed.config, preset=resumed.config.name)


def run(args: Command) -> None:
    """Train, or go on."""
    from internal_rl.pipeline import run_pretrain
    from internal_rl.runs.run_dir import open_run

    config: Any = open_run(args.run, "pretrain").config if args.resume else configs.get(args.preset)
    names = ("seed", "env", "data", "model", "pretrain", "runtime")
    config = dataclasses.replace(config, **{name: getattr(args, name) for name in names})
    check_resumed(args, config, config.name if ":" in args.preset else args.preset)
    made = run_pretrain(config, args.run, **run_flags(args))
    print(f"pretrain: done, in {made.path}")
