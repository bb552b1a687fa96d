"""What all importers do: libraries loaded where used, bounds of actions, specifications from columns."""

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from envs.world import ActionSpec
from internal_rl.errors import UserError


def extra(module: str) -> ModuleType:
    """A library that comes with an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"no module '{error.name}'; install the extra `data`: pip install 'internal-rl[data]'"
        ) from None


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    """One name, several with commas between, or several."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value)


def bounded(
    dim: int, low: float | None, high: float | None, least: float, most: float
) -> ActionSpec:
    """Real actions within the bounds that the user names, else within `least` and `most`."""
    if low is None and high is None and least == most:
        most = least + 1.0  # numbers that never change have no range of their own
    low, high = least if low is None else low, most if high is None else high
    try:
        return ActionSpec(dim=dim, low=low, high=high)
    except ValueError as error:
        raise UserError(str(error)) from None


def clipped(action: Any, spec: ActionSpec, clip: bool) -> Any:
    """Real actions clipped to their bounds, if asked for."""
    return np.clip(action, spec.low, spec.high) if clip and spec.dim else action
