"""The one exception a user is meant to see, how programs show it, and help with misspelt names."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """The user asked for something impossible.

    The message is one line that names the field or path, its value and what is allowed. The command
    line prints it to stderr and exits with status 2; nothing has been written or deleted by then.
    """


def one_line_errors(program: str, run: Callable[[], int | None]) -> int:
    """Exit code of `run`; what the user got wrong, or a stop by signal, is one line on stderr."""
    try:
        return run() or 0
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"{program}: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name that looks most like `name`."""
    return difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.0)[0]
