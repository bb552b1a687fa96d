"""`internal-rl export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from internal_rl.commands.flags import check_output, filled
from internal_rl.errors import UserError


@dataclass
class Command:
    """Write trained weights as safetensors with a JSON description."""

    run: Path
    """Run of any stage."""
    output: Path
    """Safetensors file to write; its description goes beside it, with suffix .json."""
    seed_index: int = 0
    """Which seed of the run."""
    overwrite: bool = False
    """Replace an existing file."""


def defaults(argv: Sequence[str]) -> Command:
    """--run and --output are required."""
    return filled(Command, None)


def run(args: Command) -> None:
    """Write both files."""
    from internal_rl.pipeline import export_run
    from internal_rl.runs.run_dir import open_run

    opened = open_run(args.run)
    if args.output.suffix == ".json":
        raise UserError(
            f"output is {args.output}; allowed: another suffix, since .json is for the description beside the weights"
        )
    for file in (args.output, args.output.with_suffix(".json")):
        check_output(file, args.overwrite)
    export_run(opened, args.output, args.seed_index)
    print(args.output)
