"""The check of demonstrations finds every mistake that is planted, and says it in one line."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.check import check_demonstrations
from internal_rl.demonstrations.contract import EncoderView
from internal_rl.demonstrations.flat import Flat, batch_of, host_pack, host_unpacked
from tests.internal_rl.demonstrations.known import LENGTHS, choices, episode, tokens

OBS, ACTION = ObservationSpec(dim=3), ActionSpec(dim=2, low=-0.5, high=0.5)
HORIZON = 6


@dataclass(frozen=True)
class Own:
    """A user's demonstrations on the host, without a mistake but for `change(batch, clean)`."""

    change: Any = field(default=lambda batch, clean: batch)
    integers: bool = False

    def host_rows(self, seed, step, count, *, clean):
        rng = np.random.default_rng([seed, step, clean])
        parts = [episode(e, steps, labels=True) for e, steps in enumerate(LENGTHS)]
        columns = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("obs", "action", "goal", "subgoal")
        }
        if self.integers:
            columns["obs"] = np.concatenate([tokens(e, n + 1) for e, n in enumerate(LENGTHS)])
            columns["action"] = np.concatenate([choices(e, n) for e, n in enumerate(LENGTHS)])
            columns = {name: column.astype(np.int32) for name, column in columns.items()}
        flat = Flat(
            **columns, task=np.array([0, 1, 2, 0]), starts=np.concatenate([[0], np.cumsum(LENGTHS)])
        )
        number = rng.integers(4, size=3 * count)
        if clean:
            number = number[:count]
        length = np.array(LENGTHS)[number]
        layout = host_unpacked(length, HORIZON) if clean else host_pack(length, count, HORIZON)
        spec = ObservationSpec(num_tokens=7) if self.integers else OBS
        batch = batch_of(flat, number, np.zeros_like(number), length, layout, spec)
        return self.change(replace(batch, reset=np.array(batch.reset)), clean)


def check(demonstrations, obs=OBS, action=ACTION, **options):
    return check_demonstrations(
        demonstrations, obs, action, horizon=HORIZON, num_goals=2, **options
    )


def test_nothing_is_wrong():
    assert check(Own()) == []
    assert check(Own(integers=True), ObservationSpec(num_tokens=7), ActionSpec(num_actions=4)) == []


def put(name, value, where=lambda batch: (0, 0)):
    """Set one value of a batch, at the first token of the first row if not said otherwise."""

    def change(batch, clean):
        array = np.array(getattr(batch, name))
        array[where(batch)] = value
        return replace(batch, **{name: array})

    return change


def cast(name, dtype):
    return lambda batch, clean: replace(batch, **{name: getattr(batch, name).astype(dtype)})


def first(mask):
    return tuple(int(i) for i in np.argwhere(mask)[0])


def inside(batch):
    """A token in the middle of a trajectory."""
    valid = batch.valid
    return first(valid & ~batch.reset & np.pad(valid, ((0, 0), (0, 1)))[:, 1:])


def padding(batch):
    return first(~batch.valid)


def wide(batch, clean):
    return replace(batch, obs=np.pad(batch.obs, ((0, 0), (0, 0), (0, 1))))


def viewed(batch, clean):
    obs = np.zeros((len(batch.obs), 9, 3), np.float32)
    token = np.zeros(batch.valid.shape, np.float32)
    return replace(batch, view=EncoderView(obs, np.ones(obs.shape[:2], bool), token))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wide, r"obs is float32 \[8, 6, 4\]; allowed is float32 \[8, 6, 3\]"),
        (cast("next_obs", "f8"), r"next_obs is float64 .*; allowed is float32 \[8, 6, 3\]"),
        (cast("goal", "i8"), r"goal is int64 \[8, 6\]; allowed is int32 \[8, 6\]"),
        (cast("valid", "i4"), r"valid is int32 \[8, 6\]; allowed is bool \[8, 6\]"),
        (viewed, r"view.token is float32 \[8, 6\]; allowed is int32 \[8, 6\]"),
        (put("obs", np.nan), "row 0, token 0: obs: number 0 is nan; allowed: finite numbers"),
        (put("action", 0.75), "row 0, token 0: action: number 0 is 0.75; allowed: -0.5 to 0.5"),
        (put("goal", 2), "row 0, token 0: goal: is 2; allowed: -1 to 1"),
        (put("goal", -2), "row 0, token 0: goal: is -2; allowed: -1 to 1"),
        (put("subgoal", -2), "row 0, token 0: subgoal: is -2; allowed: -1 to"),
        (put("reset", False), "row 0: does not begin with a reset; allowed: always"),
        (put("reset", True, padding), "reset on padding; allowed: on valid tokens only"),
        (put("task", 9, inside), "task changes within a trajectory"),
        (put("next_obs", 0.5, inside), "next_obs is not the obs of the token after it"),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_a_mistake_in_a_batch_is_one_line(change, message, clean):
    problems = check(Own(lambda batch, c: change(batch, c) if c == clean else batch))
    assert len(problems) == 1, problems
    place = rf"rows\(clean={clean}\): (row \d+, token \d+: )?"
    assert re.search(place + message, problems[0]), problems


@pytest.mark.parametrize(
    ("obs", "action", "change", "message"),
    [
        (7, 4, put("obs", 7), "obs: is 7; allowed: 0 to 6"),
        (7, 4, put("next_obs", -1, inside), "next_obs: is -1; allowed: 0 to 6"),
        (7, 4, put("action", 4), "action: is 4; allowed: 0 to 3"),
    ],
)
def test_integers_out_of_range(obs, action, change, message):
    demonstrations = Own(lambda batch, c: change(batch, c) if c else batch, integers=True)
    problems = check(
        demonstrations, ObservationSpec(num_tokens=obs), ActionSpec(num_actions=action)
    )
    assert any(message in problem for problem in problems), problems
    assert all("rows(clean=True)" in problem for problem in problems)


def test_blocks_that_are_not_one_hot():
    spec = ObservationSpec(dim=3, factor_sizes=(2, 1))
    problems = check(Own(), spec)
    assert all("allowed: 0 and 1 (one-hot)" in problem for problem in problems)
    assert problems


def test_clean_rows_that_are_packed():
    def change(batch, clean):
        return (
            Own().host_rows(0, int(batch.obs.sum()), len(batch.obs), clean=False)
            if clean
            else batch
        )

    problems = check(Own(change))
    assert any("holds several trajectories; allowed if clean: one" in line for line in problems)


def test_clean_rows_with_padding_on_the_left():
    def change(batch, clean):
        return jax.tree.map(lambda x: np.roll(x, 1, axis=1), batch) if clean else batch

    problems = check(Own(change))
    assert any("begins with padding; allowed: padding on the right only" in x for x in problems)


def test_rows_without_anything():
    def change(batch, clean):
        none = np.zeros_like(batch.valid)
        return batch if clean else replace(batch, valid=none, reset=none)

    assert check(Own(change)) == ["rows(clean=False): all tokens are padding"]


def test_rows_that_depend_on_more_or_less_than_the_key():
    count = iter(range(1000))

    def restless(batch, clean):
        return replace(batch, task=np.full_like(batch.task, next(count)))

    problems = check(Own(restless))
    assert problems == [
        f"rows(clean={clean}) gave other rows for the same key; allowed: the same"
        for clean in (True, False)
    ]
    fixed = Own().host_rows(0, 0, 8, clean=True), Own().host_rows(0, 0, 8, clean=False)
    problems = check(Own(lambda batch, clean: fixed[0] if clean else fixed[1]))
    assert problems == [
        f"rows(clean={clean}) gave the same rows for 3 keys; allowed: others"
        for clean in (True, False)
    ]


def test_an_object_of_another_kind():
    (problem,) = check(object())
    assert problem == "object has neither data and rows nor host_rows; allowed is either"


def test_what_a_user_raises_is_reported():
    def change(batch, clean):
        raise KeyError("oops")

    assert check(Own(change)) == [f"rows(clean={c}) raised KeyError: 'oops'" for c in (True, False)]


@dataclass(frozen=True)
class OnDevice:
    """Demonstrations on the device: random numbers in rows without padding."""

    mistake: str = ""
    obs_statistics: Any = None

    @property
    def data(self):
        return jnp.zeros((3,))

    def rows(self, data, key, count, *, clean):
        obs = jax.random.uniform(key, (count, HORIZON + 1, 3))
        if self.mistake == "traced" and not isinstance(data, jax.core.Tracer):
            obs = obs + 1.0
        if self.mistake == "branches":
            obs = obs + float(data[0])
        shape = (count, HORIZON)
        none = jnp.full(shape, -1)
        batch = batch_of(
            Flat(
                obs.reshape(-1, 3), jnp.zeros((count * HORIZON, 2)), jnp.arange(count + 1) * HORIZON
            ),
            jnp.arange(count),
            jnp.zeros((count,), jnp.int32),
            jnp.full((count,), HORIZON),
            host_layout(count),
            OBS,
        )
        metric = jnp.zeros((2,) if self.mistake == "metric" else ())
        return replace(batch, goal=none), {"fraction": metric}


def host_layout(count):
    return jax.tree.map(jnp.asarray, host_unpacked(np.full((count,), HORIZON), HORIZON))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("", None),
        ("traced", "gave other rows without jit; allowed: the same"),
        ("branches", "raised ConcretizationTypeError"),
        ("metric", "metric fraction has shape (2,); allowed: a scalar"),
    ],
)
def test_mistakes_that_only_the_device_shows(mistake, message):
    problems = check(OnDevice(mistake))
    assert len(problems) == (2 if message else 0), problems
    assert all(message in problem for problem in problems)


def test_objects_that_cannot_be_static():
    (problem,) = check(OnDevice(obs_statistics=[[0.0], [1.0]]))[:1]
    assert "is not hashable (unhashable type: 'list'); allowed: a frozen dataclass" in problem


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        (((0.0, 0.0), (1.0, 1.0)), "obs_statistics has not two tuples of shape (3,)"),
        (((0.0,) * 3, (1.0, 0.0, 1.0)), "holds numbers that are not finite, or a deviation of 0"),
    ],
)
def test_statistics_that_do_not_fit(statistics, message):
    (problem,) = check(OnDevice(obs_statistics=statistics))
    assert message in problem
