"""`internal-rl demo`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import configs
from internal_rl.commands.flags import DEFAULT_PRESET, filled


@dataclass
class Command:
    """All four stages on the held-out task, with baselines, figures and a report."""

    run: Path = Path("runs/demo")
    """Folder for the demo's run directories, summary.json and report.md."""
    preset: str = DEFAULT_PRESET
    """Named config, or path/to/file.py:NAME of your own."""
    scratch: bool = False
    """Train base model and metacontroller too, instead of starting from those that come with the package."""
    seeds: int = 3
    """RL seeds."""
    resume: bool = False
    """Go on after an interruption."""
    overwrite: bool = False
    """Replace an existing demo folder."""
    progress: bool = True
    """Show progress bars."""


def defaults(argv: Sequence[str]) -> Command:
    """The laptop preset."""
    return filled(Command, None)


def run(args: Command) -> None:
    """Run everything."""
    from internal_rl.demo import run_demo

    run_demo(
        configs.get(args.preset),
        args.run,
        scratch=args.scratch,
        seeds=args.seeds,
        resume=args.resume,
        overwrite=args.overwrite,
        progress=args.progress,
    )
