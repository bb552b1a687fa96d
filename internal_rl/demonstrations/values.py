"""What observations, actions and labels may be: the checks that writing, opening and checking demonstrations share.

A check looks at rows [n, ...] of one field. It gives the number of the first row that is wrong and one line that says
how, or None.
"""

from typing import Any, NamedTuple

import numpy as np

from envs.world import ActionSpec, ObservationSpec

CHUNK_BYTES = 2**26
"""Files are read in pieces of about this size."""


class Fault(NamedTuple):
    """Something wrong with one row of a field."""

    row: int
    text: str


class Statistics(NamedTuple):
    """Per observation number, each a tuple of floats of the observation's size."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def storage_dtype(spec: ObservationSpec | ActionSpec) -> np.dtype:
    """Dtype on disk: float32 for real numbers, int32 for alternatives and tokens, uint8 for one-hot observations, which
    are then a quarter as large and still exact."""
    if isinstance(spec, ObservationSpec) and spec.factor_sizes:
        return np.dtype(np.uint8)
    return np.dtype(spec.dtype)


def stored(values: Any, spec: ObservationSpec | ActionSpec) -> tuple[np.ndarray, Fault | None]:
    """Rows of observations or actions as they lie on disk [n, *shape], and what is wrong with them.

    Raises:
        ValueError: they have another kind of dtype, or another shape.
    """
    values = np.asarray(values)
    dtype = storage_dtype(spec)
    allowed = "iu" if dtype == np.int32 else "fiub"
    if values.dtype.kind not in allowed:
        raise ValueError(
            f"has dtype {values.dtype}; allowed are "
            + ("integers" if allowed == "iu" else "real numbers")
        )
    if values.ndim != 1 + len(spec.shape) or values.shape[1:] != spec.shape:
        raise ValueError(f"has shape {values.shape}; allowed is {_shape_text(spec)}")
    if dtype == np.float32:
        # What counts is the number that training reads: 1.0000000001 is 1 as float32, and 1e300 infinite.
        with np.errstate(over="ignore"):
            values = values.astype(dtype)
        return values, fault(values, spec)
    found = fault(values, spec)  # before integers wrap around
    return (values if found else values.astype(dtype)), found


def _shape_text(spec: ObservationSpec | ActionSpec) -> str:
    return f"({', '.join(['rows', *map(str, spec.shape)])})"


def fault(values: np.ndarray, spec: ObservationSpec | ActionSpec) -> Fault | None:
    """What is wrong with these observations or actions [n, *shape]."""
    if isinstance(spec, ActionSpec):
        if spec.num_actions:
            return _outside(values, 0, spec.num_actions - 1)
        return not_finite(values) or _outside(values, spec.low, spec.high)
    if spec.num_tokens:
        return _outside(values, 0, spec.num_tokens - 1)
    if spec.factor_sizes:
        return _not_one_hot(values, spec.factor_sizes)
    return not_finite(values)


def label_fault(values: np.ndarray, count: int | None = None) -> Fault | None:
    """What is wrong with goals, sub-goals or tasks [n]: allowed are -1 and 0 to count - 1 (None: no upper end)."""
    top = np.iinfo(np.int32).max if count is None else count - 1
    return _outside(values, -1, top)


def not_finite(values: np.ndarray) -> Fault | None:
    """The first number that is NaN or infinite."""
    return _first(~np.isfinite(values), values, "finite numbers")


def _outside(values: np.ndarray, low: int | float, high: int | float) -> Fault | None:
    return _first((values < low) | (values > high), values, f"{low} to {high}")


def _not_one_hot(values: np.ndarray, sizes: tuple[int, ...]) -> Fault | None:
    wrong = _first((values != 0) & (values != 1), values, "0 and 1 (one-hot)")
    if wrong:
        return wrong
    begin = np.cumsum([0, *sizes[:-1]])
    ones = np.add.reduceat(values.astype(np.int32), begin, axis=1)  # [n, blocks]
    bad = np.argwhere(ones != 1)
    if not len(bad):
        return None
    row, block = bad[0]
    return Fault(
        int(row), f"one-hot block {block} holds {ones[row, block]} ones; allowed is exactly one"
    )


def _first(wrong: np.ndarray, values: np.ndarray, allowed: str) -> Fault | None:
    if not wrong.any():
        return None
    index = [int(i) for i in np.argwhere(wrong)[0]]
    number = f"number {index[1]} is" if len(index) > 1 else "is"
    return Fault(index[0], f"{number} {values[tuple(index)]}; allowed: {allowed}")


def pieces(array: np.ndarray) -> list[slice]:
    """Slices of the first axis, each about `CHUNK_BYTES` large, that cover it."""
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, CHUNK_BYTES // row_bytes)
    return [slice(at, min(at + step, len(array))) for at in range(0, len(array), step)]


def extremes(values: np.ndarray) -> tuple[Any, Any]:
    """Smallest and largest number of an array, read piece by piece."""
    parts = pieces(values)
    return min(values[part].min() for part in parts), max(values[part].max() for part in parts)


def obs_statistics(obs: np.ndarray, spec: ObservationSpec) -> Statistics | None:
    """Mean and standard deviation over all rows of obs [N, *O], in float64; None for tokens. Reads the array twice."""
    if spec.num_tokens:
        return None
    parts = pieces(obs)
    zero = np.zeros(obs.shape[1:])
    mean = sum((obs[part].sum(axis=0, dtype=np.float64) for part in parts), zero) / len(obs)
    squares = sum((((obs[part] - mean) ** 2).sum(axis=0) for part in parts), zero)
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(squares / len(obs)).tolist()))
