"""Ranges of settings, in the words of every error: field, value, what is allowed."""

import math
from typing import Any


def at_least(cfg: Any, low: int | float, *names: str, prefix: str = "") -> None:
    """Raise ValueError unless the named fields are finite and at least `low`."""
    for name in names:
        value = getattr(cfg, name)
        if not (value >= low and math.isfinite(value)):
            raise ValueError(f"{prefix}{name} is {value}; allowed: at least {low}")


def above_zero(cfg: Any, *names: str, prefix: str = "") -> None:
    """Raise ValueError unless the named fields are finite and above 0."""
    for name in names:
        value = getattr(cfg, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{prefix}{name} is {value}; allowed: above 0")


def in_unit(cfg: Any, *names: str, prefix: str = "") -> None:
    """Raise ValueError unless the named fields are in [0, 1]."""
    for name in names:
        value = getattr(cfg, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{prefix}{name} is {value}; allowed: in [0, 1]")
