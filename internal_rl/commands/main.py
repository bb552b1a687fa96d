"""Entry point of `internal-rl`: choose the command, parse its flags, run it.

A mistake of the user's ends in one line on stderr and exit code 2.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import tyro

import configs
from internal_rl.errors import UserError, nearest, one_line_errors

COMMANDS = (
    "pretrain",
    "adopt",
    "discover",
    "reinforce",
    "evaluate",
    "render",
    "export",
    "check",
    "demo",
)
"""Modules of this package with `Command`, `defaults` and `run`."""

FAMILIES = {
    "data": "record, import and check demonstrations on disk",
    "credit": "credit assignment with exact ground truth (COCOA)",
    "social": "learning-aware agents (COALA-PG, embedded Bayesian agents, predictive policy improvement)",
}
"""Modules of this package with `main(argv) -> exit code`: commands of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return one_line_errors("internal-rl", lambda: _dispatch(argv))


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name in FAMILIES:
        if not _asks_for_help(rest):
            _start_jax()
        return module(name).main(rest)
    if name not in COMMANDS:
        raise UserError(
            f"unknown command '{name}'; did you mean '{nearest(name, (*COMMANDS, *FAMILIES))}'? "
            f"allowed: {', '.join((*COMMANDS, *FAMILIES))}"
        )
    chosen = module(name)
    if not _asks_for_help(rest):
        _start_jax()
    try:
        args = tyro.cli(
            chosen.Command,
            prog=f"internal-rl {name}",
            args=rest,
            default=chosen.defaults(rest),
            description=chosen.Command.__doc__,
            # A config names one world and one model by its class; flags set the fields of that one.
            config=(tyro.conf.AvoidSubcommands,),
        )
    except SystemExit as stop:  # tyro has printed help or what is wrong with the flags
        return int(stop.code or 0)
    from internal_rl.runs.cache import enable_compilation_cache

    enable_compilation_cache()
    chosen.run(args)
    return 0


def module(name: str) -> ModuleType:
    """The module of a command or family."""
    return importlib.import_module(f"internal_rl.commands.{name}")


def _asks_for_help(argv: Sequence[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _start_jax() -> None:
    # First of all that imports JAX, because importing gymnax starts it.
    import internal_rl.runs.all_cores  # noqa: F401


def _usage() -> str:
    lines = [
        "usage: internal-rl COMMAND [flags]; internal-rl COMMAND --help explains every flag",
        "",
    ]
    for name in COMMANDS:
        lines.append(f"  {name:10} {(module(name).Command.__doc__ or '').splitlines()[0]}")
    lines += [f"  {name:10} a family of commands: {what}" for name, what in FAMILIES.items()]
    return "\n".join([*lines, "", f"presets: {', '.join(configs.names())}"])


if __name__ == "__main__":
    sys.exit(main())
