"""One writer per run directory: a lock that the operating system releases when its process ends, killed or not."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from internal_rl.errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def writer(path: Path) -> Iterator[None]:
    """Hold the run directory `path` for writing. Readers need no lock.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    try:
        file = (path / LOCK).open("a")
    except OSError as error:
        raise UserError(f"run directory {path} cannot be written to: {error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{path} is being written by another process; wait for it, stop it, or choose another name"
            ) from None
        yield
