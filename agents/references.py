"""Objects of a user's own files, named in a config: `path/to/file.py:NAME` or `package.module:NAME`."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def is_reference(name: str) -> bool:
    """Whether `name` means an object of the user's rather than one of ours, whose names have no colon."""
    return ":" in name or name.endswith(".py")


def load(reference: str) -> Any:
    """The object that `reference` names. A file is run once in a process, and may import its neighbours.

    Raises:
        ValueError: no such file, module or name, not of the form above, or the file raised something.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(
            f"'{reference}' names no object; allowed: path/to/file.py:NAME or package.module:NAME"
        )
    with blaming(reference):
        module = _from_file(Path(place).resolve()) if place.endswith(".py") else _installed(place)
    if not hasattr(module, name):
        public = sorted(n for n in vars(module) if not n.startswith("_"))
        raise ValueError(f"'{reference}': {place} has no '{name}'; it has {', '.join(public)}")
    return getattr(module, name)


def fingerprint(reference: str) -> str | None:
    """SHA-256 of the file that `reference` is in, after it was loaded; None for a module without a file.

    What that file imports is not part of it.
    """
    place = reference.rpartition(":")[0]
    file = Path(place) if place.endswith(".py") else _file_of(place)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else None


def load_function(reference: str, *args: str, **kwargs: Any) -> Callable[..., Any]:
    """`load`, of something that can be called with arguments `args` (their names) and keywords; it is not called.

    Raises:
        ValueError: as `load`, or it can't.
    """
    found = load(reference)
    try:
        inspect.signature(found).bind(*args, **kwargs)
    except TypeError as error:
        wanted = ", ".join([*args, *(f"{name}=…" for name in kwargs)])
        raise ValueError(f"'{reference}' cannot be called as ({wanted}): {error}") from None
    return found


@contextlib.contextmanager
def blaming(reference: str) -> Iterator[None]:
    """Inside, an error that comes out of the file of `reference` is a ValueError of one line that says where.

    Nothing is done where `reference` is none; errors from elsewhere pass.
    """
    try:
        yield
    except Exception as error:
        place = reference.rpartition(":")[0]
        file = Path(place).resolve() if place.endswith(".py") else _file_of(place)
        if isinstance(error, SyntaxError) and file is not None and error.filename == str(file):
            raise ValueError(f"{file}, line {error.lineno}: SyntaxError: {error.msg}") from error
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if file is not None and frame.filename == str(file)]
        if not own:
            raise
        message = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{file}, line {own[-1].lineno} in {own[-1].name}: {type(error).__name__}: {message}"
        ) from error


def _file_of(module: str) -> Path | None:
    found = getattr(sys.modules.get(module), "__file__", None)
    return Path(found) if found else None


@functools.cache
def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"no file {path}; allowed: path/to/file.py:NAME of an existing file")
    # The path is in the name, so that two files of one name stay apart; dataclasses look their module up.
    name = f"_file_{path.as_posix()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _installed(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"'{name}' is no module; allowed: path/to/file.py or package.module")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Its own missing imports are the module's business.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"no module '{name}'; allowed: an installed one, or path/to/file.py"
        ) from None
