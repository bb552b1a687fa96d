"""The type checker of `pytest --typecheck`: beartype, except where JAX itself builds an object.

JAX rebuilds registered dataclasses by calling their `__init__` with whatever a transformation puts
in the place of arrays: shapes, axes, partition specs, NumPy arrays, arrays with one more axis. The
annotations speak of what our code constructs, so only those calls are checked.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

from beartype import beartype


def check(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Decorator that jaxtyping applies to a function with the signature that is to be checked."""
    checked = beartype(function, *args, **kwargs)
    if function.__name__ != "__init__":
        return checked

    @functools.wraps(checked)
    def check_unless_called_by_jax(*args: Any, **kwargs: Any) -> Any:
        return None if _caller().split(".")[0] == "jax" else checked(*args, **kwargs)

    return check_unless_called_by_jax


def _caller() -> str:
    """Module that called the constructor, leaving out jaxtyping's frames and ours."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals["__name__"].split(".")[0] == "jaxtyping":
        frame = frame.f_back
    return frame.f_globals["__name__"]
