"""beartype for everything but constructors and choices.

Not checked are
- constructors: JAX rebuilds pytrees around anything (numpy arrays in `device_get`, shapes in `eval_shape`, axis
  numbers in `vmap`), tyro fills commands with its own "missing", and settings are checked by `validate`;
- the members of a `Literal`: users can get these wrong, so our code answers with what is allowed. The static
  checker still knows them.
"""

from collections.abc import Callable
from typing import Any, Literal, get_origin

from beartype import beartype


def check(function: Callable) -> Callable:
    """Decorate a function with beartype, unless it is a constructor."""
    if function.__name__ == "__init__":
        return function
    function.__annotations__ = {
        name: Any if get_origin(hint) is Literal else hint
        for name, hint in function.__annotations__.items()
    }
    return beartype(function)
