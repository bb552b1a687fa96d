import dataclasses
import json
import types
import typing
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.runs.config_io import config_from_json, config_to_json


def values(kind):
    """Strategy for the JSON of a field of this type."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {f.name: values(hints[f.name]) for f in dataclasses.fields(kind)}
        return st.fixed_dictionaries(fields)
    if typing.get_origin(kind) is Literal:
        return st.sampled_from(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return st.lists(values(typing.get_args(kind)[0]), max_size=3)
    if typing.get_origin(kind) is types.UnionType:
        return st.one_of(member(k, typing.get_args(kind)) for k in typing.get_args(kind))
    return {
        bool: st.booleans(),
        int: st.integers(-(2**40), 2**40),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=8),
    }[kind]


def member(kind, union):
    """A member of a union of dataclasses; where its first field is any text, none that names another member."""
    names = {dataclasses.fields(k)[0].default for k in union}
    first = dataclasses.fields(kind)[0]
    if typing.get_origin(typing.get_type_hints(kind)[first.name]) is Literal:
        return values(kind)
    return values(kind).filter(lambda data: data[first.name] not in names - {first.default})


@given(values(Config))
@settings(max_examples=20)
def test_round_trip(data):
    config = config_from_json(data, Config)
    text = json.dumps(config_to_json(config), allow_nan=False)
    assert json.loads(text) == data
    again = config_from_json(json.loads(text), Config)
    assert again == config
    assert hash(again) == hash(config)


def edited(**changes):
    data = config_to_json(Config())
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        target[name] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited(env__colour=3), r"file: unknown field\(s\) env\.colour"),
        (edited(env__horizon="24"), r"field env\.horizon is '24'; allowed: int"),
        (edited(env__horizon=True), r"field env\.horizon is True; allowed: int"),
        (edited(pretrain__packing=1), r"field pretrain\.packing is 1; allowed: bool"),
        (
            edited(model__mixer="lstm"),
            r"model\.mixer is 'lstm'; allowed: one of 'transformer', 'ha",
        ),
        (edited(env__pretrain_tasks="032"), r"env\.pretrain_tasks is '032'; allowed: a list"),
        (edited(env__pretrain_tasks=["0", 3]), r"env\.pretrain_tasks\[1\] is 3; allowed: str"),
        (edited(discover__optimizer=None), r"discover\.optimizer is None; allowed: a JSON object"),
        (
            edited(env__world=3),
            r"file: field env\.world is 3; allowed: 'gridworld-pinpad' or 'tokens' or a refere",
        ),
        (edited(env__world="tokens"), r"file: unknown field\(s\) env\.grid_size, env\.num_objects"),
        (edited(model=None), r"file: field model is None; allowed: a JSON object"),
        ([], r"\(top level\) is \[\]; allowed: a JSON object"),
    ],
)
def test_strictness(data, message):
    with pytest.raises(UserError, match=message):
        config_from_json(data, Config, source="file")


def test_missing_fields_are_all_named():
    data = config_to_json(Config())
    del data["model"]["width"], data["model"]["depth"]
    with pytest.raises(UserError, match=r"missing field\(s\) model\.width, model\.depth"):
        config_from_json(data, Config)


def test_whole_numbers_are_floats_where_floats_are_due():
    again = config_from_json(edited(discover__kl_weight=1), Config)
    assert type(again.discover.kl_weight) is float


@dataclasses.dataclass(frozen=True)
class Other:
    pair: tuple[int, float]
    maybe: int | None


def test_other_kinds_of_fields():
    for config in (Other((1, 2.0), None), Other((1, 2.0), 3)):
        assert config_from_json(config_to_json(config), Other) == config
    with pytest.raises(UserError, match="allowed: a list of 2"):
        config_from_json({"pair": [1], "maybe": None}, Other)
    with pytest.raises(UserError, match="field maybe is 'x'"):
        config_from_json({"pair": [1, 2.0], "maybe": "x"}, Other)
