"""Folders of demonstrations: what is written is read, nothing is half there, and what is wrong is one clear line."""

import json
import os
import tracemalloc

import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.folder_check import check_folder
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError
from tests.internal_rl.demonstrations.known import LENGTHS, episode, tokens

OBS, ACTION = ObservationSpec(dim=3), ActionSpec(dim=2, low=-0.5, high=0.5)


def written(path, labels=True):
    with Writer(path, OBS, ACTION, {"by": "test"}) as writer:
        for e, steps in enumerate(LENGTHS):
            writer.append(Episode(**episode(e, steps, labels)))
    return path


def written_and_stopped(path, **settings):
    with Writer(path, OBS, ACTION, **settings) as writer:
        writer.append(Episode(**episode(0, 3)))
        raise RuntimeError("stopped by the user")


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "data")


def test_the_picture_of_the_format(folder):
    """The files are plain arrays, laid out as the docstring draws them, whoever reads them."""
    arrays = {file.stem: np.load(file) for file in folder.glob("*.npy")}
    assert {name: (str(a.dtype), a.shape) for name, a in arrays.items()} == {
        "obs": ("float32", (13 + 4, 3)),
        "action": ("float32", (13, 2)),
        "goal": ("int32", (13,)),
        "subgoal": ("int32", (13,)),
        "task": ("int32", (4,)),
        "reward": ("float32", (13,)),
        "starts": ("int64", (5,)),
    }
    starts = arrays["starts"]
    assert starts.tolist() == [0, 3, 8, 9, 13]
    for e, steps in enumerate(LENGTHS):
        fields = episode(e, steps, labels=True)
        rows = slice(starts[e], starts[e + 1])
        np.testing.assert_array_equal(
            arrays["obs"][starts[e] + e : starts[e + 1] + e + 1], fields["obs"]
        )
        for name in ("action", "goal", "subgoal", "reward"):
            np.testing.assert_array_equal(arrays[name][rows], fields[name])
        assert arrays["task"][e] == fields["task"]


def test_the_manifest_describes_the_files(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert (manifest["episodes"], manifest["steps"]) == (4, 13)
    assert (manifest["shortest"], manifest["longest"]) == (1, 5)
    assert manifest["made_by"] == {"by": "test"}
    assert (manifest["num_goals"], manifest["num_tasks"]) == (2, 3)
    obs = np.load(folder / "obs.npy").astype(np.float64)
    np.testing.assert_allclose(manifest["obs_statistics"]["mean"], obs.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(manifest["obs_statistics"]["std"], obs.std(axis=0), rtol=1e-12)
    assert manifest["action_range"] == [-0.5, 0.5]
    opened = open_folder(folder)
    assert (opened.obs_spec, opened.action_spec) == (OBS, ACTION)
    assert opened.lengths.tolist() == list(LENGTHS)
    assert all(isinstance(array, np.memmap) for array in opened.arrays.values())
    assert check_folder(folder, OBS, ACTION, num_goals=2).problems == ()


def test_statistics_of_large_offsets_are_exact(tmp_path):
    """A mean far from zero does not eat the deviation."""
    rng = np.random.default_rng(0)
    obs = (1e4 + rng.normal(size=(2000, 1))).astype(np.float32)
    with Writer(tmp_path / "far", ObservationSpec(dim=1), ACTION) as writer:
        writer.append(Episode(obs, np.zeros((1999, 2))))
    assert open_folder(tmp_path / "far").statistics.std[0] == pytest.approx(obs.std(dtype="f8"))


def test_one_hot_and_tokens_are_stored_small_and_exactly(tmp_path):
    one_hot = np.concatenate([np.eye(3)[[0, 2, 1]], np.eye(2)[[1, 1, 0]]], axis=1)
    spec = ObservationSpec(dim=5, factor_sizes=(3, 2))
    with Writer(tmp_path / "hot", spec, ActionSpec(num_actions=4)) as writer:
        writer.append(Episode(one_hot, [3, 0]))
    obs = open_folder(tmp_path / "hot").arrays["obs"]
    assert obs.dtype == np.uint8
    np.testing.assert_array_equal(obs, one_hot)
    with Writer(tmp_path / "tok", ObservationSpec(num_tokens=7), ActionSpec(num_actions=7)) as w:
        w.append(Episode(tokens(1, 4), tokens(1, 4)[1:]))
    opened = open_folder(tmp_path / "tok")
    assert opened.arrays["obs"].dtype == opened.arrays["action"].dtype == np.int32
    assert opened.statistics is None
    assert not check_folder(tmp_path / "tok").problems


def test_the_writer_does_not_hold_the_data(tmp_path):
    spec = ObservationSpec(dim=50)
    tracemalloc.start()
    with Writer(tmp_path / "big", spec, ActionSpec(num_actions=2)) as writer:
        for _ in range(100):
            writer.append(Episode(np.zeros((201, 50), np.float32), np.zeros(200, np.int32)))
        held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "big" / "obs.npy").stat().st_size > 4_000_000
    assert held < 1_000_000


def test_a_folder_appears_when_it_is_complete_and_only_then(tmp_path):
    writer = Writer(tmp_path / "data", OBS, ACTION)
    writer.append(Episode(**episode(0, 3)))
    assert not (tmp_path / "data").exists()
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(RuntimeError, match="by the user"):
        written_and_stopped(tmp_path / "b")
    with pytest.raises(UserError, match="no episodes for"), Writer(tmp_path / "c", OBS, ACTION):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_nothing_is_overwritten(folder):
    before = (folder / "obs.npy").read_bytes()
    with pytest.raises(UserError, match="exists; choose another folder"):
        Writer(folder, OBS, ACTION)
    # Not even an empty folder that appears while data is written.
    writer = Writer(folder.parent / "late", OBS, ACTION)
    writer.append(Episode(**episode(0, 3)))
    (folder.parent / "late").mkdir()
    with pytest.raises(UserError, match="exists; choose another folder"):
        writer.finish()
    writer.discard()
    assert (folder / "obs.npy").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "late"]


def test_modes_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        written(tmp_path / "data")
    finally:
        os.umask(old)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750
    assert all(f.stat().st_mode & 0o777 == 0o640 for f in (tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"obs": np.zeros((3, 3))}, "obs has 3 rows and action 3; allowed is one row more of obs"),
        ({"obs": np.zeros((4, 2))}, r"obs has shape \(4, 2\); allowed is \(rows, 3\)"),
        ({"obs": np.full((4, 3), np.nan)}, "obs, row 0: number 0 is nan; allowed: finite numbers"),
        ({"obs": np.full((4, 3), 1e300)}, "obs, row 0: number 0 is inf; allowed: finite numbers"),
        ({"obs": np.full((4, 3), "a")}, "obs has dtype <U1; allowed are real numbers"),
        ({"action": np.full((3, 2), 0.6)}, "action, row 0: number 0 is 0.6.*allowed: -0.5 to 0.5"),
        ({"action": np.zeros((0, 2)), "obs": np.zeros((1, 3))}, "action has no rows; allowed are"),
        ({"goal": [0, 1]}, r"goal has shape \(2,\); allowed is \(3,\)"),
        ({"goal": [0, -2, 0]}, "goal, row 1: is -2; allowed: -1 to"),
        ({"goal": [0.0, 1.0, 0.0]}, "goal has dtype float64; allowed are integers"),
        ({"task": [0, 1]}, r"task has shape \(2,\); allowed is \(\)"),
        ({"task": 2**40}, "task, row 0: is 1099511627776; allowed: -1 to"),
        ({"reward": [0, np.inf, 0]}, "reward, row 1: is inf; allowed: finite numbers"),
        ({"goal": None}, "optional fields are subgoal, task, reward; allowed are those of the fi"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, fields, message):
    good = episode(0, 3, labels=True)
    writer = Writer(tmp_path / "data", OBS, ACTION)
    writer.append(Episode(**good))
    with pytest.raises(UserError, match=f"^episode 1: {message}"):
        writer.append(Episode(**(good | fields)))
    writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ([[1, 0, 0, 1], [1, 0, 0, 0.5]], "obs, row 1: number 3 is 0.5; allowed: 0 and 1"),
        ([[1, 0, 0, 1], [1, 1, 0, 1]], "obs, row 1: one-hot block 0 holds 2 ones; allowed is exac"),
        ([[1, 0, 0, 0], [1, 0, 0, 1]], "obs, row 0: one-hot block 1 holds 0 ones; allowed is exac"),
    ],
)
def test_one_hot_observations_are(tmp_path, obs, message):
    spec = ObservationSpec(dim=4, factor_sizes=(2, 2))
    writer = Writer(tmp_path / "data", spec, ActionSpec(num_actions=2))
    with pytest.raises(UserError, match=message):
        writer.append(Episode(np.array(obs), [0]))
    writer.discard()


def test_integers_are_in_range_before_they_are_cut_to_size(tmp_path):
    writer = Writer(tmp_path / "data", ObservationSpec(num_tokens=5), ActionSpec(num_actions=2))
    for obs, action, message in (
        ([0, 2**32], [0], "obs, row 1: is 4294967296; allowed: 0 to 4"),
        ([0, 5], [0], "obs, row 1: is 5; allowed: 0 to 4"),
        ([0, 1], [2], "action, row 0: is 2; allowed: 0 to 1"),
        ([0, 1], [1.0], "action has dtype float64; allowed are integers"),
        ([[0], [1]], [1], r"obs has shape \(2, 1\); allowed is \(rows\)"),
    ):
        with pytest.raises(UserError, match=message):
            writer.append(Episode(np.array(obs), np.array(action)))
    writer.discard()


def started(path, count, labels=True, **settings):
    """A resumable writer that has been saved after `count` episodes, and was killed while it wrote the next one."""
    writer = Writer(path, OBS, ACTION, {"by": "test"}, resume=True, **settings)
    for e in range(count):
        writer.append(Episode(**episode(e, LENGTHS[e], labels)))
    writer.save({"next": count})
    writer.append(Episode(**episode(3, 4, labels)))
    writer._close()


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_killed_writer_is_resumed(tmp_path, folder, count, labels):
    started(tmp_path / "again", count, labels)
    assert not (tmp_path / "again").exists()
    with Writer(tmp_path / "again", OBS, ACTION, {"by": "test"}, resume=True) as writer:
        assert (writer.episodes, writer.position) == (count, {"next": count})
        for e in range(count, 4):
            writer.append(Episode(**episode(e, LENGTHS[e], labels)))
    whole = folder if labels else written(tmp_path / "plain", labels=False)
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == {
        file.name: file.read_bytes() for file in whole.iterdir()
    }


def test_what_cannot_be_resumed(tmp_path):
    started(tmp_path / "data", 2)
    with pytest.raises(
        UserError, match=r"other demonstrations \(made_by was .*'test'.*, is .*'you'"
    ):
        Writer(tmp_path / "data", OBS, ACTION, {"by": "you"}, resume=True)
    with pytest.raises(UserError, match=r"other demonstrations \(specs was"):
        Writer(tmp_path / "data", ObservationSpec(dim=4), ACTION, {"by": "test"}, resume=True)
    writer = Writer(tmp_path / "data", OBS, ACTION, {"by": "test"}, resume=True)
    with pytest.raises(UserError, match="is being written by another process"):
        Writer(tmp_path / "data", OBS, ACTION, {"by": "test"}, resume=True)
    with pytest.raises(UserError, match="optional fields are none; allowed are those of the first"):
        writer.append(Episode(**episode(2, 1)))
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_an_error_before_the_first_save_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stopped by the user"):
        written_and_stopped(tmp_path / "data", resume=True)
    assert not list(tmp_path.iterdir())


def test_made_by_is_json(tmp_path):
    with pytest.raises(UserError, match="made_by cannot be written as JSON"):
        Writer(tmp_path / "data", OBS, ACTION, {"by": object()})
    assert not list(tmp_path.iterdir())
