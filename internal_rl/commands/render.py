"""`internal-rl render`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from internal_rl.commands.flags import check_output, filled


@dataclass
class Command:
    """Draw one episode as a GIF and three expert trajectories with β over the true sub-goals."""

    run: Path
    """Discover or reinforce run."""
    output: Path | None = None
    """Folder for the pictures; default: figures/ inside --run."""
    seed: int = 0
    """Seed of the starts."""
    seed_index: int = 0
    """Which seed of the run."""
    overwrite: bool = False
    """Replace existing pictures."""


def defaults(argv: Sequence[str]) -> Command:
    """--run is required."""
    return filled(Command, None)


def run(args: Command) -> None:
    """Draw."""
    from internal_rl.analysis.report import render_run
    from internal_rl.runs.run_dir import open_run

    opened = open_run(args.run)
    folder = args.output or opened.figures_dir
    for name in ("episode.gif", "switching.png"):
        check_output(folder / name, args.overwrite)
    for path in render_run(opened, folder, seed=args.seed, seed_index=args.seed_index):
        print(path)
