"""A family of commands, `internal-rl FAMILY COMMAND [flags]`: choosing one, running it, its help."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from internal_rl.errors import UserError, nearest

Commands = Mapping[str, tuple[type, Callable]]
"""Command line as a dataclass, and what runs it, by name."""


def run_family(
    family: str,
    commands: Commands,
    parse: Callable[[str, Sequence[str]], Any],
    presets: Sequence[str],
    argv: Sequence[str],
) -> int:
    """Run one command and return the exit code.

    Args:
        family: its name, as typed.
        commands: all of them.
        parse: (name, flags) → arguments.
        presets: lines of the help that name them.
        argv: what follows the family's name.

    Raises:
        UserError: the user's mistakes.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"usage: internal-rl {family} COMMAND [flags]", ""]
        for name, (command, _) in commands.items():
            lines.append(f"  {name:10} {(command.__doc__ or '').splitlines()[0]}")
        print("\n".join([*lines, "", *presets]))
        return 0 if argv else 2
    name, flags = argv[0], list(argv[1:])
    if name not in commands:
        raise UserError(
            f"unknown command '{family} {name}'; did you mean '{nearest(name, commands)}'? "
            f"allowed: {', '.join(commands)}"
        )
    try:
        args = parse(name, flags)
    except SystemExit as stop:  # tyro has printed help or what is wrong with the flags
        return int(stop.code or 0)
    from internal_rl.runs.cache import enable_compilation_cache

    enable_compilation_cache()
    commands[name][1](args)
    return 0
