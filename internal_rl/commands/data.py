"""`internal-rl data record|import|check`: demonstrations on disk."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

import configs
from internal_rl.commands.family import run_family
from internal_rl.commands.flags import DEFAULT_PRESET, filled, preset
from internal_rl.config import EnvConfig, PinpadConfig, PretrainConfig
from internal_rl.errors import UserError


@dataclass
class Record:
    """Play an expert in a world and write what it did into a folder."""

    output: Path
    """Folder to make."""
    preset: str = DEFAULT_PRESET
    """Named config whose world is played, or path/to/file.py:NAME of your own; the flags below change single fields."""
    policy: str = ""
    """path/to/file.py:NAME of a function (key, obs, state) → action; empty: the expert that comes with the world."""
    clean: bool = False
    """The world's expert without noise, as discovery wants it."""
    heldout: bool = False
    """Play the held-out tasks instead of the pretraining tasks."""
    episodes: int = 1000
    """Episodes to write."""
    successes_only: bool = False
    """Leave out episodes of --policy that fail."""
    seed: int = 0
    """Seed of starts and policy."""
    env: EnvConfig = field(default_factory=PinpadConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


@dataclass
class Import:
    """Turn somebody else's data set into a folder of demonstrations."""

    source: str
    """What to read: a Minari folder or id, an OGBench .npz, a LeRobot v3 folder, or path/to/file.py:NAME of episodes."""
    output: Path
    """Folder to make."""
    format: Literal["minari", "ogbench", "lerobot", "reference"] = "reference"
    """What --source is."""
    preset: str = ""
    """Config whose world the episodes are of; format reference needs it."""
    low: float | None = None
    """Lower bound of real-valued actions; default: what the data set says."""
    high: float | None = None
    """Upper bound."""
    clip: bool = False
    """Clip actions to the bounds."""
    key: str = ""
    """Minari: which entry of observations that are dictionaries. LeRobot: which features are the observation, with commas
    between."""
    action_key: str = ""
    """LeRobot: which features are the action."""


@dataclass
class Check:
    """Look at every byte of a folder of demonstrations: files, checksums, values, lengths."""

    path: tyro.conf.Positional[Path]
    """The folder."""
    preset: str = ""
    """Config whose world the episodes shall fit."""


def main(argv: Sequence[str]) -> int:
    """`argv` without `data`; returns the exit code."""
    return run_family("data", COMMANDS, parse, [f"presets: {', '.join(configs.names())}"], argv)


def parse(name: str, argv: Sequence[str]) -> Any:
    """Flags of one command."""
    command, _ = COMMANDS[name]
    return tyro.cli(
        command,
        prog=f"internal-rl data {name}",
        args=list(argv),
        default=filled(command, preset(argv)) if command is Record else None,
        description=command.__doc__,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _record(args: Record) -> None:
    from internal_rl import build
    from internal_rl.demonstrations.record import record
    from internal_rl.demonstrations.record_expert import record_expert

    config = dataclasses.replace(configs.get(args.preset), env=args.env, pretrain=args.pretrain)
    world = build.heldout_world(config.env) if args.heldout else build.pretrain_world(config.env)
    if args.policy:
        done = record(
            args.policy,
            world,
            args.output,
            args.episodes,
            args.seed,
            successes_only=args.successes_only,
        )
    else:
        unpacked = dataclasses.replace(config.pretrain, packing=False)
        config = dataclasses.replace(config, pretrain=unpacked)
        source = build.expert(config, world, clean=args.clean)
        if source is None:
            raise UserError(
                f"policy is empty; allowed: path/to/file.py:NAME, since {config.data.source} is itself a recording"
            )
        done = record_expert(source, world, args.output, args.episodes, args.seed, clean=args.clean)
    print(
        f"{done.path}: {done.episodes} episodes, {done.steps} steps, {done.steps_per_second:,.0f} steps per second; "
        f"{done.successes} of {done.tried} played succeeded"
    )


def _import(args: Import) -> None:
    module = importlib.import_module(f"internal_rl.demonstrations.importers.{args.format}")
    bounds = {n: getattr(args, n) for n in ("low", "high") if getattr(args, n) is not None}
    options: dict[str, Any] = {**bounds, "clip": args.clip}
    if args.format == "reference":
        from internal_rl import build

        if not args.preset:
            raise UserError("preset is empty; allowed: the config whose world the episodes are of")
        world = build.pretrain_world(configs.get(args.preset).env)
        options = {"obs_spec": world.obs_spec, "action_spec": world.action_spec}
    if args.key and args.format in ("minari", "lerobot"):
        options["key" if args.format == "minari" else "obs"] = args.key
    if args.action_key and args.format == "lerobot":
        options["action"] = args.action_key
    run = getattr(module, f"import_{args.format}")
    print(run(args.source, args.output, **options))


def _check(args: Check) -> None:
    from internal_rl.demonstrations.folder_check import check_folder

    if args.preset:
        from internal_rl import build

        world = build.pretrain_world(configs.get(args.preset).env)
        found = check_folder(args.path, world.obs_spec, world.action_spec, world.num_goals)
    else:
        found = check_folder(args.path)
    print("\n".join(found.summary))
    if found.problems:
        print("\n".join(found.problems))
        raise UserError(
            f"{args.path}: {len(found.problems)} problem(s), listed above; allowed: none"
        )
    print(f"{args.path}: nothing is wrong")


COMMANDS: dict[str, tuple[type, Callable]] = {
    "record": (Record, _record),
    "import": (Import, _import),
    "check": (Check, _check),
}
