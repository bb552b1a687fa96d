"""Configs as JSON: frozen dataclasses out, the same frozen dataclasses back, strictly."""

import dataclasses
import types
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from internal_rl.errors import UserError

ConfigT = TypeVar("ConfigT")


def config_to_json(config: Any) -> Any:
    """A config as nested dicts, lists, strings, numbers and booleans (tuples become lists)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: config_to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, (tuple, list)):
        return [config_to_json(item) for item in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise TypeError(f"a config holds only dataclasses, tuples and plain values, not {type(config)}")


def config_from_json(data: Any, cls: type[ConfigT], *, source: str = "config") -> ConfigT:
    """Rebuild the frozen dataclass `cls`, nested ones included, from `config_to_json`'s output.

    Raises `UserError` naming the field (dotted) when one is unknown, missing or of the wrong type;
    `source` says where the data came from.
    """
    return _decode(data, cls, source, "")


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a nested config with its dotted name."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def _decode(value: Any, kind: Any, source: str, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(value, kind, source, path)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise _wrong(source, path, value, "one of " + ", ".join(map(repr, args)))
    if origin is tuple:
        return _decode_tuple(value, args, source, path)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        if all(dataclasses.is_dataclass(a) for a in args):
            return _decode_dataclass(value, _tagged(value, args, source, path), source, path)
        return _decode(value, next(a for a in args if a is not type(None)), source, path)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, so the exact type is asked for.
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise _wrong(source, path, value, getattr(kind, "__name__", str(kind)))


def _decode_dataclass(value: Any, kind: Any, source: str, path: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(source, path or "(top level)", value, "a JSON object")
    prefix = f"{path}." if path else ""
    names = [f.name for f in dataclasses.fields(kind)]
    unknown = [prefix + name for name in value if name not in names]
    if unknown:
        raise UserError(f"{source}: unknown field(s) {', '.join(unknown)}")
    missing = [prefix + name for name in names if name not in value]
    if missing:
        raise UserError(
            f"{source}: missing field(s) {', '.join(missing)}; it was written by another version of internal-rl, "
            "which can read it"
        )
    hints = get_type_hints(kind)
    return kind(**{n: _decode(value[n], hints[n], source, prefix + n) for n in names})


def _tagged(value: Any, kinds: tuple, source: str, path: str) -> Any:
    """The class that the first field of `value` names: where it is a Literal, one of its choices; else any text."""
    if not isinstance(value, dict):
        raise _wrong(source, path or "(top level)", value, "a JSON object")
    tag = dataclasses.fields(kinds[0])[0].name
    found, allowed = value.get(tag), []
    for kind in kinds:
        hint = get_type_hints(kind)[tag]
        if get_origin(hint) is not Literal:
            if isinstance(found, str):
                return kind
        elif found in get_args(hint):
            return kind
        allowed.append(repr(get_args(hint)[0]) if get_args(hint) else "a reference")
    raise _wrong(source, f"{path}.{tag}", found, " or ".join(allowed))


def _decode_tuple(value: Any, args: tuple, source: str, path: str) -> tuple:
    if not isinstance(value, list):
        raise _wrong(source, path, value, "a list")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise _wrong(source, path, value, f"a list of {len(args)}")
    return tuple(
        _decode(item, kind, source, f"{path}[{i}]")
        for i, (item, kind) in enumerate(zip(value, args, strict=True))
    )


def _wrong(source: str, path: str, value: Any, allowed: str) -> UserError:
    return UserError(f"{source}: field {path} is {value!r}; allowed: {allowed}")
