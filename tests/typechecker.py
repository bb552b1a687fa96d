"""beartype for everything but the constructors of pytrees.

JAX rebuilds pytrees around anything: numpy arrays (`device_get`), shapes (`eval_shape`), axis numbers
(`vmap`). A dataclass whose fields are annotated as arrays then legitimately holds something else.
"""

from collections.abc import Callable
from typing import Any, get_args

import jax
from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    """Decorate a function with beartype, unless it is the `__init__` of a dataclass of arrays."""
    if function.__name__ == "__init__" and any(
        _mentions_arrays(hint) for hint in function.__annotations__.values()
    ):
        return function
    return beartype(function)


def _mentions_arrays(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jax.Array | AbstractArray):
        return True
    return any(_mentions_arrays(part) for part in get_args(hint))
