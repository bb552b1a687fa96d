"""The one exception a user is meant to see, and help with misspelt names."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user asked for something impossible.

    The message is one line that names the field or path, its value and what is allowed. The command
    line prints it to stderr and exits with status 2; nothing has been written or deleted by then.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name that looks most like `name`."""
    return difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.0)[0]
