"""Named presets: `get("gridworld-laptop")`.

One module per experiment family; each has `PRESETS`, complete configs by name. Per family: `smoke`
(seconds, for tests), `laptop` (minutes on two CPU cores), `paper` (the paper's numbers).
"""

from types import ModuleType

from agents.references import is_reference, load
from configs import gridworld, own, tokens
from internal_rl.config import Config
from internal_rl.errors import UserError, nearest


def get(name: str) -> Config:
    """The preset called `name`, or a user's own, `path/to/file.py:NAME`.

    Raises:
        UserError: no such preset (with the nearest right name, and all names), or no `Config` in that file.
    """
    if name in _PRESETS:
        return _PRESETS[name]
    if is_reference(name):
        try:
            found = load(name)
        except ValueError as error:
            raise UserError(f"preset: {error}") from None
        if not isinstance(found, Config):
            raise UserError(
                f"preset: {name} is a {type(found).__name__}; allowed: an internal_rl.config.Config"
            )
        return found
    raise UserError(
        f"unknown preset '{name}'; did you mean '{nearest(name, _PRESETS)}'? "
        f"allowed: {', '.join(_PRESETS)}"
    )


def names() -> tuple[str, ...]:
    """All presets, family by family."""
    return tuple(_PRESETS)


def _collect(*families: ModuleType) -> dict[str, Config]:
    presets: dict[str, Config] = {}
    for family in families:
        for name, config in family.PRESETS.items():
            if name in presets:
                raise ValueError(f"two presets are called '{name}'; one is in {family.__name__}")
            if config.name != name:
                raise ValueError(
                    f"preset '{name}' in {family.__name__} calls itself '{config.name}'"
                )
            presets[name] = config
    return presets


_PRESETS = _collect(gridworld, tokens, own)
