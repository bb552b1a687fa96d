"""What the commands of all pillars share: flags of a training run, resuming, files that a command writes."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

import configs
from internal_rl.errors import UserError
from internal_rl.runs.config_io import leaves

if TYPE_CHECKING:
    from internal_rl.runs.run_dir import RunDir


DEFAULT_PRESET = "gridworld-laptop"
STAGES = ("pretrain", "discover", "reinforce")
CommandT = TypeVar("CommandT")


def filled(command: type[CommandT], config: Any, **values: Any) -> CommandT:
    """A command's defaults: the config's fields of the same names, and `values`; what has no default is required."""
    fields: Any = dataclasses.fields(command)  # pyright: ignore[reportArgumentType]
    for f in fields:
        if f.name in values:
            continue
        if config is not None and hasattr(config, f.name):
            values[f.name] = getattr(config, f.name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            values[f.name] = tyro.MISSING
    return command(**values)


def preset(argv: Sequence[str]) -> Any:
    """The config that --preset names, else the usual one."""
    return configs.get(flag(argv, "preset") or DEFAULT_PRESET)


def parent_config(argv: Sequence[str], command: str, source: str) -> Any:
    """The config whose fields are a command's defaults: of --preset, else of the run that it builds on, --`source`.

    Raises:
        UserError: no such flag or run, or a run of another family.
    """
    if "--help" in argv or "-h" in argv:
        return preset(argv)
    path = flag(argv, source)
    if path is None:
        raise UserError(
            f"--{source} is missing; internal-rl {command} needs the run directory it builds on"
        )
    if flag(argv, "preset"):
        return preset(argv)
    from internal_rl.runs.run_dir import open_run

    run = open_run(path)
    if run.stage not in STAGES:  # the config of another family would only look damaged
        raise UserError(
            f"--{source}: {path} is a run of stage '{run.stage}'; expected one of {', '.join(STAGES)}"
        )
    return run.config


@dataclass
class RunFlags:
    """Flags of every stage that trains."""

    run: Path
    """Run directory to make."""
    resume: bool = False
    """Go on from the newest checkpoint of --run, with the settings it was started with; others are refused."""
    overwrite: bool = False
    """Replace an existing run directory."""
    seeds: int = 1
    """Independent seeds, trained at once (vmapped)."""
    progress: bool = True
    """Show a progress bar."""


def run_flags(args: RunFlags) -> dict[str, Any]:
    """The flags that a `run_*` function takes besides config, path and parents."""
    return {name: getattr(args, name) for name in ("seeds", "resume", "overwrite", "progress")}


def flag(argv: Sequence[str], name: str) -> str | None:
    """Value of --name in argv, before tyro sees it: it decides on the defaults of all other flags."""
    for i, word in enumerate(argv):
        if word == f"--{name}" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def resumed_run(argv: Sequence[str]) -> "RunDir | None":
    """The run that --resume in argv goes on with; its settings are the defaults of all flags.

    Raises:
        UserError: it is no run directory.
    """
    path = flag(argv, "run")
    if path is None or "--resume" not in argv or "--help" in argv or "-h" in argv:
        return None
    from internal_rl.runs.run_dir import open_run

    return open_run(path)


def check_resumed(args: RunFlags, config: Any, preset: str = "") -> None:
    """Refuse flags that a resumed run could only ignore.

    Args:
        args: the command's flags; nothing is checked without --resume.
        config: config that they describe.
        preset: the one that they name, where a run's config is called by its preset.

    Raises:
        UserError: a setting, or the preset, is not what --run was started with.
    """
    if not args.resume:
        return
    from internal_rl.runs.run_dir import open_run

    run = open_run(args.run)
    started = run.load_config(type(config))
    if preset and preset != started.name:
        raise UserError(
            f"preset is {preset!r}; allowed with --resume: {started.name!r}. {run.path} goes on as it was started"
        )
    settings = dict(leaves(started))
    changed = [
        f"{name} is {value!r}; allowed with --resume: {settings[name]!r}"
        for name, value in leaves(config)
        if value != settings[name]
    ]
    if args.overwrite:
        changed.append("overwrite is True; allowed with --resume: False")
    if args.seeds not in (1, run.info["num_seeds"]):
        changed.append(f"seeds is {args.seeds}; allowed with --resume: {run.info['num_seeds']}")
    if changed:
        raise UserError("; ".join(changed) + f". {run.path} goes on as it was started")


def check_output(path: Path, overwrite: bool) -> None:
    """Make sure, before any work, that a file can be written at `path`; folders above it are made.

    Raises:
        UserError: the file exists and `overwrite` is not set, or there is something else in the way.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; allowed: the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another name, or pass --overwrite to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from None


def report(result: Any, output: Path | None) -> None:
    """Print a result as JSON and write it to `output`."""
    from internal_rl.runs.run_dir import write_json

    if output is not None:
        write_json(output, result)
    print(json.dumps(result, indent=2))
