"""Rows of recorded episodes, on the device and by the host, against the episodes that were written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.check import check_demonstrations
from internal_rl.demonstrations.contract import Demonstrations, HostDemonstrations
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.flat import batch_of, host_pack, host_unpacked, read_windows
from internal_rl.demonstrations.packing import pack, unpacked
from internal_rl.demonstrations.recorded import open_recorded, without_constants
from internal_rl.demonstrations.values import Statistics
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError
from tests.internal_rl.demonstrations.known import LENGTHS, choices, episode, tokens

OBS, ACTION = ObservationSpec(dim=3), ActionSpec(dim=2, low=-0.5, high=0.5)
SPECS = (OBS, ACTION)
FIELDS = ("obs", "next_obs", "action", "goal", "subgoal", "task")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "data"
    with Writer(path, OBS, ACTION) as writer:
        for e, steps in enumerate(LENGTHS):
            writer.append(Episode(**episode(e, steps, labels=True)))
    return path


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def compiled(recorded, data, key, count, clean):
    return recorded.rows(data, key, count, clean=clean)[0]


def draw(recorded, number, count, clean):
    """Batch of either kind of demonstrations, as NumPy arrays."""
    if isinstance(recorded, HostDemonstrations):
        return recorded.host_rows(5, number, count, clean=clean)
    return jax.device_get(compiled(recorded, recorded.data, jax.random.key(number), count, clean))


def pieces(batch):
    """(row, tokens) of every trajectory in the rows: from its reset to the next one or to padding."""
    for row in range(len(batch.valid)):
        valid = batch.valid[row]
        begins = np.flatnonzero(batch.reset[row])
        for i, begin in enumerate(begins):
            end = begins[i + 1] if i + 1 < len(begins) else len(valid)
            yield row, slice(begin, begin + int(valid[begin:end].sum()))


def identify(batch, row, span):
    """Episode and first step of a trajectory, from its first observation; all its fields are then compared."""
    first = batch.obs[row, span.start]
    start = round(-first[1] * 8)
    number = round(first[0] - start / 16)
    steps = span.stop - span.start
    fields = episode(number, LENGTHS[number], labels=True)
    window = slice(start, start + steps)
    np.testing.assert_array_equal(batch.obs[row, span], fields["obs"][window])
    following = slice(start + 1, start + steps + 1)
    np.testing.assert_array_equal(batch.next_obs[row, span], fields["obs"][following])
    for name in ("action", "goal", "subgoal"):
        np.testing.assert_array_equal(getattr(batch, name)[row, span], fields[name][window])
    assert (batch.task[row, span] == fields["task"]).all()
    return number, start, steps


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("horizon", [3, 5, 7])
def test_clean_rows_hold_one_episode_from_its_first_step(folder, on_device, horizon):
    recorded = open_recorded(folder, SPECS, horizon=horizon, packing=True, on_device=on_device)
    batch = draw(recorded, 0, 64, clean=True)
    assert batch.valid.shape == (64, horizon)
    np.testing.assert_array_equal(
        batch.reset, np.broadcast_to(np.arange(horizon) == 0, (64, horizon))
    )
    seen = set()
    for row, span in pieces(batch):
        number, start, steps = identify(batch, row, span)
        assert (span.start, start, steps) == (0, 0, min(horizon, LENGTHS[number]))
        assert not batch.valid[row, steps:].any()
        seen.add(number)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize(("horizon", "packing"), [(3, False), (3, True), (12, True), (9, False)])
def test_other_rows_hold_episodes_or_windows_of_them(folder, on_device, horizon, packing):
    recorded = open_recorded(folder, SPECS, horizon=horizon, packing=packing, on_device=on_device)
    batch = draw(recorded, 1, 64, clean=False)
    found = [identify(batch, row, span) for row, span in pieces(batch)]
    covered = sum(steps for _, _, steps in found)
    assert covered == batch.valid.sum()  # nothing valid outside
    for number, start, steps in found:
        assert steps == min(horizon, LENGTHS[number])
        assert 0 <= start <= LENGTHS[number] - steps
    assert len(found) > 64 if packing else len(found) == 64
    if horizon > max(LENGTHS):
        assert {start for _, start, _ in found} == {0}
    else:
        assert {start for number, start, _ in found if number == 1} == {0, 1, 2}


@pytest.mark.parametrize("on_device", [True, False])
def test_episodes_and_windows_are_uniform(folder, on_device):
    """All frequencies within four standard deviations."""
    recorded = open_recorded(folder, SPECS, horizon=3, on_device=on_device)
    count = 4096
    batch = draw(recorded, 2, count, clean=False)
    found = np.array([identify(batch, row, span)[:2] for row, span in pieces(batch)])
    for number in range(4):
        share = (found[:, 0] == number).mean()
        assert abs(share - 1 / 4) < 4 * np.sqrt(3 / 16 / count)
    windows = found[found[:, 0] == 1, 1]
    for start in range(3):
        share = (windows == start).mean()
        assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / len(windows))


@pytest.mark.parametrize("on_device", [True, False])
def test_packed_rows_are_full(folder, on_device):
    """Only what the next episode does not fit into is lost, at the end of a row; no row is left empty."""
    recorded = open_recorded(folder, SPECS, horizon=12, packing=True, on_device=on_device)
    for number in range(4):
        valid = draw(recorded, number, 32, clean=False).valid
        assert valid.sum(axis=1).min() > 0
        assert (valid.sum(axis=1)[:-1] > 12 - max(LENGTHS)).all()
        assert valid.mean() > 0.8


def test_host_and_device_lay_out_the_same_rows(folder):
    """The same draws give the same rows, exactly, whether gathered on the device or read from files."""
    device = open_recorded(folder, SPECS, horizon=3, packing=True, on_device=True)
    host = open_recorded(folder, SPECS, horizon=3, packing=True, on_device=False)
    rng = np.random.default_rng(0)
    number = rng.integers(4, size=20)
    length = np.minimum(np.array(LENGTHS)[number], 3)
    first = rng.integers(np.array(LENGTHS)[number] - length + 1)
    read, place = read_windows(host.arrays, number, first, length)
    for ours, theirs in ((host_pack(length, 8, 3), pack), (host_unpacked(length, 3), unpacked)):
        there = jnp.asarray(length, jnp.int32)
        layout = theirs(there, 8, 3) if theirs is pack else theirs(there, 3)
        by_device = batch_of(
            device.data,
            *(jnp.asarray(x, jnp.int32) for x in (number, first)),
            there,
            layout,
            OBS,
        )
        by_host = batch_of(read, place, np.zeros(20, int), length, ours, OBS)
        for name in (*FIELDS, "reset", "valid"):
            a, b = getattr(by_host, name), jax.device_get(getattr(by_device, name))
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a[by_host.valid], b[by_host.valid])
            if name in ("reset", "valid"):
                np.testing.assert_array_equal(a, b)


packer = jax.jit(lambda lengths: pack(lengths, 4, 7))


@given(st.lists(st.integers(1, 7), min_size=12, max_size=12))
def test_the_host_packs_as_the_device_does(lengths):
    ours, theirs = host_pack(np.array(lengths), 4, 7), packer(jnp.asarray(lengths, jnp.int32))
    for name in ("trajectory", "time", "reset", "valid"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_resumed_run_repeats_the_rows(folder):
    recorded = open_recorded(folder, SPECS, horizon=5, packing=True, on_device=False)
    again = open_recorded(folder, SPECS, horizon=5, packing=True, on_device=False)
    for clean in (True, False):
        rows = recorded.host_rows(1, 7, 16, clean=clean)
        recorded.host_rows(1, 8, 16, clean=clean)
        jax.tree.map(np.testing.assert_array_equal, rows, again.host_rows(1, 7, 16, clean=clean))
        for other in ((1, 8), (2, 7)):
            assert not np.array_equal(rows.obs, again.host_rows(*other, 16, clean=clean).obs)


def test_keys_under_vmap(folder):
    """Several seeds at once are those seeds one after the other."""
    recorded = open_recorded(folder, SPECS, horizon=5, packing=True, on_device=True)
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(
        jax.vmap(lambda data, key: recorded.rows(data, key, 4, clean=False)[0], (None, 0))
    )(recorded.data, keys)
    for i in range(3):
        alone = compiled(recorded, recorded.data, keys[i], 4, False)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


def test_equal_folders_share_a_program(folder):
    """The object is a static argument: opened twice it is the same, with other settings another."""
    one, two = (open_recorded(folder, SPECS, horizon=5, on_device=True) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    compiled(one, one.data, jax.random.key(0), 4, True)
    programs = compiled._cache_size()
    compiled(two, two.data, jax.random.key(1), 4, True)
    assert compiled._cache_size() == programs
    others = {"horizon": 4}, {"packing": True}, {"on_device": False}
    settings = {"horizon": 5, "on_device": True}
    assert all(open_recorded(folder, SPECS, **(settings | other)) != one for other in others)


def test_one_hot_observations_come_as_float(tmp_path):
    spec = ObservationSpec(dim=5, factor_sizes=(3, 2))
    one_hot = np.concatenate([np.eye(3)[[0, 2, 1]], np.eye(2)[[1, 1, 0]]], axis=1)
    with Writer(tmp_path / "data", spec, ActionSpec(num_actions=4)) as writer:
        writer.append(Episode(one_hot, [3, 0]))
    for on_device in (True, False):
        recorded = open_recorded(
            tmp_path / "data", (spec, ActionSpec(num_actions=4)), horizon=2, on_device=on_device
        )
        batch = draw(recorded, 0, 1, clean=True)
        assert batch.obs.dtype == np.float32
        assert batch.action.dtype == np.int32
        np.testing.assert_array_equal(batch.obs[0], one_hot[:2])
        np.testing.assert_array_equal(batch.next_obs[0], one_hot[1:])
        np.testing.assert_array_equal(batch.action[0], [3, 0])
        for name in ("goal", "subgoal", "task"):
            assert (getattr(batch, name) == -1).all()
        assert recorded.obs_statistics is None


@pytest.mark.parametrize("on_device", [True, False])
def test_the_contract_is_kept(folder, tmp_path, on_device):
    for horizon, packing in ((3, True), (4, False)):
        recorded = open_recorded(
            folder, SPECS, horizon=horizon, packing=packing, on_device=on_device
        )
        kind = Demonstrations if on_device else HostDemonstrations
        assert isinstance(recorded, kind)
        assert not isinstance(recorded, HostDemonstrations if on_device else Demonstrations)
        assert check_demonstrations(recorded, *SPECS, horizon=horizon, num_goals=2) == []
    specs = ObservationSpec(num_tokens=7), ActionSpec(num_actions=4)
    with Writer(tmp_path / "tokens", *specs) as writer:
        for e, steps in enumerate(LENGTHS):
            writer.append(Episode(tokens(e, steps + 1), choices(e, steps)))
    recorded = open_recorded(
        tmp_path / "tokens", specs, horizon=6, packing=True, on_device=on_device
    )
    assert check_demonstrations(recorded, *specs, horizon=6, num_goals=0) == []


def test_a_folder_is_checked_by_its_name(folder):
    assert check_demonstrations(folder, *SPECS, num_goals=0) == []
    (problem,) = check_demonstrations(folder, ObservationSpec(dim=4), ACTION)
    assert "the world's is 4 real numbers" in problem


def test_statistics(folder):
    recorded = open_recorded(folder, SPECS, horizon=5)
    obs = np.load(folder / "obs.npy").astype(np.float64)
    np.testing.assert_allclose(recorded.obs_statistics, [obs.mean(axis=0), obs.std(axis=0)])
    # Numbers that do not vary are left as they are: 0.1 as float32, a thousand times, varies by rounding.
    mean, std = without_constants(Statistics((5.0, 0.1, -1e6, 0.0), (0.0, 1e-9, 0.5, 2e-3)))
    assert mean == (5.0, 0.1, -1e6, 0.0)
    assert std == (1.0, 1.0, 1.0, 2e-3)


def test_size_decides_where_data_lies(folder):
    size = sum(file.stat().st_size - 128 for file in folder.glob("*.npy"))
    size -= np.load(folder / "reward.npy").nbytes
    for least, kind in ((size, Demonstrations), (size - 1, HostDemonstrations)):
        assert isinstance(open_recorded(folder, SPECS, horizon=5, device_bytes=least), kind)


class Place:
    """As much of a world as opening needs."""

    obs_spec, action_spec, horizon, num_goals = OBS, ACTION, 4, 2
    starts = reset = step = goal = outcome = print


def test_a_world_tells_what_fits(folder, tmp_path):
    recorded = open_recorded(folder, Place())
    assert (recorded.horizon, recorded.num_goals) == (4, 2)
    assert draw(recorded, 0, 8, clean=True).goal.max() == 1
    none = Place()
    none.num_goals = 0
    batch = draw(open_recorded(folder, none), 0, 8, clean=True)
    assert (batch.goal == -1).all()
    assert (batch.subgoal == -1).all()
    assert batch.task.max() == 2
    narrow = Place()
    narrow.action_spec = ActionSpec(dim=2, low=-0.5, high=0.25)
    few = Place()
    few.num_goals = 1
    for world, message in (
        (narrow, "actions reach from -0.5 to 0.5; the world's may be -0.5 to 0.25"),
        (few, "goals go up to 1; the world's go up to 0"),
    ):
        with pytest.raises(UserError, match=message):
            open_recorded(folder, world)
    with pytest.raises(UserError, match="horizon is 0; allowed is 1 or more"):
        open_recorded(folder, Place(), horizon=0)
    with pytest.raises(UserError, match="horizon is None; allowed without a world"):
        open_recorded(folder, SPECS)
    with pytest.raises(UserError, match="gone is no folder"):
        open_recorded(tmp_path / "gone", SPECS, horizon=3)


def test_actions_at_a_bound_that_float32_rounds_outwards(tmp_path):
    """-0.1 as float32 is a little less than -0.1."""
    spec = ActionSpec(dim=1, low=-0.1, high=0.1)
    with Writer(tmp_path / "data", OBS, spec) as writer:
        writer.append(Episode(np.zeros((3, 3)), [[-0.1], [0.1]]))
    assert open_recorded(tmp_path / "data", (OBS, spec), horizon=2).episodes == 1
