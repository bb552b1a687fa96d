"""`internal-rl reinforce`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.credit.config import SampledMethod
from internal_rl.commands.flags import (
    RunFlags,
    check_resumed,
    filled,
    flag,
    parent_config,
    resumed_run,
    run_flags,
)
from internal_rl.config import ReinforceConfig, RuntimeConfig


@dataclass
class Command(RunFlags):
    """Stage 3: RL on the held-out tasks, in code space (internal) or on raw actions."""

    parent: Path = Path()
    """Discover run (method internal) or pretrain run (method raw_action) to build on."""
    parent_seed: int = 0
    """Which of its seeds."""
    preset: str = ""
    """Preset for this stage's settings; default: those stored in --parent."""
    seed: int = 0
    """The one seed of the run."""
    heldout_tasks: tuple[str, ...] = ()
    """Tasks to train on instead of the config's held-out tasks, e.g. 0123."""
    credit: SampledMethod | None = None
    """How codes are credited with later rewards (sets reinforce.credit.method); internal RL only."""
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Fields of the named preset, of --parent, or of the run that is resumed."""
    resumed = resumed_run(argv)
    if resumed:
        return filled(Command, resumed.config)
    config = parent_config(argv, "reinforce", "parent")
    if flag(argv, "reinforce.method") == "raw_action":
        config = dataclasses.replace(config, reinforce=config.raw_action)
    return filled(Command, config)


def run(args: Command) -> None:
    """Train, or go on."""
    from internal_rl.pipeline import parent_stage, run_reinforce
    from internal_rl.runs.run_dir import open_run

    if args.resume:
        started = open_run(args.run, "reinforce")
        config = started.config
        parent = started.parent(parent_stage(config))
    else:
        stage = "discover" if args.reinforce.method == "internal" else "pretrain"
        parent = open_run(args.parent, stage)
        config = parent.config
    rl = args.reinforce
    if args.credit is not None:
        rl = dataclasses.replace(rl, credit=dataclasses.replace(rl.credit, method=args.credit))
    config = dataclasses.replace(config, seed=args.seed, reinforce=rl, runtime=args.runtime)
    if args.heldout_tasks:
        env = dataclasses.replace(config.env, heldout_tasks=args.heldout_tasks)
        config = dataclasses.replace(config, env=env)
    check_resumed(args, config)
    made = run_reinforce(config, args.run, parent, parent_seed=args.parent_seed, **run_flags(args))
    print(f"reinforce: done, in {made.path}")
