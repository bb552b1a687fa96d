"""Importers on small files that the libraries themselves wrote (`data/make_data.py`), number by number."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.folder_check import check_folder
from internal_rl.demonstrations.importers import (
    import_lerobot,
    import_minari,
    import_ogbench,
    import_reference,
)
from internal_rl.demonstrations.importers.common import extra
from internal_rl.errors import UserError
from tests.internal_rl.demonstrations.known import (
    LENGTHS,
    actions,
    choices,
    observations,
    rewards,
    tokens,
)

DATA = Path(__file__).parent / "data"
POINT = {"obs": lambda e, n: observations(e, n + 1), "action": actions}


def minari():
    pytest.importorskip("minari", reason="Minari is in the extra `data`")
    pytest.importorskip("h5py", reason="Minari's files need h5py, of the extra `data`")
    pytest.importorskip("pyarrow", reason="Minari's arrow files need pyarrow, of the extra `data`")


def pyarrow():
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra `data`")


def assert_holds(path, fields, lengths=LENGTHS):
    """Every episode of the folder is the known one."""
    folder = open_folder(path)
    assert folder.lengths.tolist() == list(lengths)
    assert set(folder.arrays) == {*fields, "starts"}
    for e, steps in enumerate(lengths):
        begin = int(folder.arrays["starts"][e])
        places = {"obs": slice(begin + e, begin + e + steps + 1), "task": e}
        for name, known in fields.items():
            found = folder.arrays[name][places.get(name, slice(begin, begin + steps))]
            np.testing.assert_array_equal(found, known(e, steps), err_msg=name)
    assert check_folder(path).problems == ()
    return folder


def test_minari_vectors(tmp_path):
    minari()
    path = import_minari(DATA / "minari" / "point-v0", tmp_path / "out")
    folder = assert_holds(path, {**POINT, "reward": rewards})
    assert folder.obs_spec == ObservationSpec(dim=3)
    assert folder.action_spec == ActionSpec(dim=2, low=-1.0, high=1.0)
    assert folder.manifest["made_by"]["source"] == "point-v0"


def test_minari_by_id(tmp_path, monkeypatch):
    minari()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(DATA / "minari"))
    path = import_minari("point-v0", tmp_path / "out")
    assert_holds(path, {**POINT, "reward": rewards})
    with pytest.raises(UserError, match=r"no Minari data set 'absent-v0': .*not found locally"):
        import_minari("absent-v0", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no Minari data set .*empty"):
        import_minari(tmp_path / "empty", tmp_path / "none")


def test_minari_choices_count_from_zero(tmp_path):
    minari()
    path = import_minari(DATA / "minari" / "walk-v0", tmp_path / "out")
    known = {"obs": lambda e, n: tokens(e, n + 1), "action": choices, "reward": rewards}
    folder = assert_holds(path, known)
    assert folder.obs_spec == ObservationSpec(num_tokens=7)
    assert folder.action_spec == ActionSpec(num_actions=4)


def test_minari_dictionaries(tmp_path):
    minari()
    source = DATA / "minari" / "goal-v0"
    known = {
        "obs": lambda e, n: observations(e, n + 1)[:, :2],
        "action": actions,
        "reward": rewards,
    }
    folder = assert_holds(import_minari(source, tmp_path / "one", key="observation"), known)
    # The space has no bounds, so the data's are taken.
    assert (folder.action_spec.low, folder.action_spec.high) == (-0.5, 0.5)
    both = import_minari(source, tmp_path / "both", key="observation, goal", low=-2.0, high=2.0)
    folder = assert_holds(both, {**POINT, "reward": rewards})
    assert folder.action_spec == ActionSpec(dim=2, low=-2.0, high=2.0)
    clipped = import_minari(source, tmp_path / "c", key=["goal"], low=-0.25, high=0.25, clip=True)
    np.testing.assert_array_equal(
        open_folder(clipped).arrays["action"][:3], np.clip(actions(0, 3), -0.25, 0.25)
    )
    for options, message in (
        ({}, "observations are dictionaries with .*; choose with key"),
        ({"key": "speed"}, "key is 'speed'; allowed: .*observation"),
        (
            {"key": "goal", "low": -0.25},
            "episode 0: action, row 0: number 0 is -0.5; allowed: -0.25",
        ),
    ):
        with pytest.raises(UserError, match=message):
            import_minari(source, tmp_path / "none", **options)
    with pytest.raises(UserError, match="key is goal; allowed where observations have no keys"):
        import_minari(DATA / "minari" / "point-v0", tmp_path / "none", key="goal")
    assert not (tmp_path / "none").exists()


def test_minari_images_are_refused_by_name(tmp_path):
    minari()
    from gymnasium import spaces

    from internal_rl.demonstrations.importers.minari import _obs_spec

    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r"observations\['camera'\] are Box.*allowed: a vector"):
        _obs_spec([image], ("camera",))


def test_ogbench(tmp_path):
    """The file as published, and the same as OGBench's own loader hands it out, with `next_observations`."""
    for name in ("point", "point-loaded"):
        path = import_ogbench(DATA / "ogbench" / f"{name}.npz", tmp_path / name)
        folder = assert_holds(path, POINT)
        assert folder.action_spec == ActionSpec(dim=2, low=-1.0, high=1.0)


def test_ogbench_files_that_do_not_fit(tmp_path):
    with np.load(DATA / "ogbench" / "point.npz") as file:
        good = dict(file)
    rows = len(good["terminals"])
    open_end = good["terminals"].copy()
    open_end[-1] = False
    np.savez(tmp_path / "open.npz", **{**good, "terminals": open_end})
    assert_holds(import_ogbench(tmp_path / "open.npz", tmp_path / "open"), POINT)
    number = {**good, "actions": (good["actions"][:, 0] > 0).astype(np.int64)}
    np.savez(tmp_path / "choices.npz", **number)
    folder = open_folder(import_ogbench(tmp_path / "choices.npz", tmp_path / "choices"))
    assert folder.action_spec == ActionSpec(num_actions=2)
    for change, message in (
        (
            {"observations": np.zeros((rows, 8, 8, 3), np.uint8)},
            "observations has shape .*images pe",
        ),
        ({"actions": 3 * good["actions"]}, "number 0 is -1.5; allowed: -1.0 to 1.0"),
        ({"actions": good["actions"][:, 0]}, "actions has shape .*; allowed is"),
        ({"actions": good["actions"][1:]}, "numbers of rows are .*allowed are equal ones"),
        ({"terminals": None}, "has no terminals; allowed: a file with observations, actions"),
    ):
        columns = {k: v for k, v in {**good, **change}.items() if v is not None}
        np.savez(tmp_path / "bad.npz", **columns)
        with pytest.raises(UserError, match=message):
            import_ogbench(tmp_path / "bad.npz", tmp_path / "none")
    np.savez(tmp_path / "bad.npz", **{**good, "actions": 3 * good["actions"]})
    clipped = open_folder(import_ogbench(tmp_path / "bad.npz", tmp_path / "clipped", clip=True))
    assert clipped.manifest["action_range"] == [-1.0, 1.0]
    (tmp_path / "bad.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"bad\.npz is no \.npz file"):
        import_ogbench(tmp_path / "bad.npz", tmp_path / "none")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"array\.npy is no \.npz file: it holds"):
        import_ogbench(tmp_path / "array.npy", tmp_path / "none")
    with pytest.raises(UserError, match=r"no file .*gone\.npz; allowed: an OGBench \.npz"):
        import_ogbench(tmp_path / "gone.npz", tmp_path / "none")
    assert not (tmp_path / "none").exists()


TASK = {"task": lambda e, n: e % 2}
BOTH = "observation.state,observation.side"


def test_lerobot(tmp_path):
    """Two files of frames, an episode of one frame that is left out, a feature of one number."""
    pyarrow()
    path = import_lerobot(DATA / "lerobot", tmp_path / "out", obs=BOTH, reward="next.reward")
    folder = assert_holds(path, {**POINT, **TASK, "reward": rewards})
    assert folder.action_spec == ActionSpec(dim=2, low=-0.5, high=0.5)  # what the data shows
    assert folder.manifest["made_by"]["episodes_of_one_frame_left_out"] == 1
    assert folder.manifest["made_by"]["fps"] == 10
    plain = import_lerobot(DATA / "lerobot", tmp_path / "plain", low=-1.0, high=1.0)
    known = {"obs": lambda e, n: observations(e, n + 1)[:, :2], "action": actions, **TASK}
    folder = assert_holds(plain, known)
    assert folder.action_spec == ActionSpec(dim=2, low=-1.0, high=1.0)


@pytest.fixture
def robot(tmp_path):
    """A copy of the folder that a test may damage."""
    pyarrow()
    return Path(shutil.copytree(DATA / "lerobot", tmp_path / "robot"))


def rewrite(file, change):
    parquet = pyarrow()
    table = parquet.read_table(file)
    parquet.write_table(change(table), file, row_group_size=3)


def column(table, name, values):
    import pyarrow as pa

    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_lerobot_episodes_over_several_row_groups(robot, tmp_path):
    for file in (robot / "data").rglob("*.parquet"):
        rewrite(file, lambda table: table)
    path = import_lerobot(robot, tmp_path / "out", obs=BOTH)
    assert_holds(path, {**POINT, **TASK})


def test_lerobot_choices(robot, tmp_path):
    def change(table):
        return column(table, "action", [[int(a[0] > 0)] for a in table["action"].to_pylist()])

    for file in (robot / "data").rglob("*.parquet"):
        rewrite(file, change)
    info = json.loads((robot / "meta" / "info.json").read_text())
    info["features"]["action"] |= {"dtype": "int64", "shape": [1]}
    (robot / "meta" / "info.json").write_text(json.dumps(info))
    path = import_lerobot(robot, tmp_path / "out", obs=BOTH, num_actions=2)
    known = {**POINT, **TASK, "action": lambda e, n: actions(e, n)[:, 0] > 0}
    assert assert_holds(path, known).action_spec == ActionSpec(num_actions=2)


def test_lerobot_features_are_refused_by_name(robot, tmp_path):
    info = json.loads((robot / "meta" / "info.json").read_text())
    info["features"]["observation.images.top"] = {"dtype": "video", "shape": [8, 8, 3]}
    (robot / "meta" / "info.json").write_text(json.dumps(info))
    # Images are no trouble where nobody asks for them.
    import_lerobot(robot, tmp_path / "out")
    for options, message in (
        (
            {"obs": "observation.images.top"},
            r"feature 'observation.images.top' is video of shape \(8, 8, 3\); allowed are vectors",
        ),
        ({"obs": "observation.sate"}, "no feature 'observation.sate'; allowed: observation.state"),
        ({"action": "torque"}, "no feature 'torque'; allowed: "),
        ({"reward": "pay"}, "no feature 'pay'; allowed: "),
        ({"low": -0.25}, "episode 0: action, row 0: number 0 is -0.5; allowed: -0.25 to 0.5"),
        ({"low": 2.0, "high": 1.0}, "low=2.0, high=1.0: allowed are finite bounds, low < high"),
    ):
        with pytest.raises(UserError, match=message):
            import_lerobot(robot, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_lerobot_folders_that_contradict_themselves(robot, tmp_path):
    file = robot / "data" / "chunk-000" / "file-001.parquet"
    content, info = file.read_bytes(), robot / "meta" / "info.json"

    def refused(message):
        with pytest.raises(UserError, match=message):
            import_lerobot(robot, tmp_path / "none")
        assert not (tmp_path / "none").exists()
        file.write_bytes(content)

    rewrite(file, lambda table: table.slice(1))
    refused("frame_index of episode 2 does not count from 0")
    rewrite(file, lambda table: table.slice(0, 6))
    refused("episode 3 has 4 frames in data and 5 in meta/episodes")
    rewrite(file, lambda table: table.slice(0, 2))
    refused("episode 3 of meta/episodes is not in data")
    rewrite(file, lambda table: table.drop_columns(["action"]))
    refused("file-001.parquet has no column action")
    rewrite(file, lambda table: column(table, "action", [[0.0]] * table.num_rows))
    refused("'action' has 1 numbers per frame, meta/info.json says 2")
    info.write_text(info.read_text().replace('"v3.0"', '"v2.1"'))
    refused("codebase_version is v2.1; allowed: v3.0")
    info.write_text("{")
    refused("info.json is not valid JSON")
    info.unlink()
    refused("no .*info.json; allowed: a LeRobot folder of version 3")


OWN = """
import numpy as np
from tests.internal_rl.demonstrations.known import LENGTHS, actions, observations

def episode(e, steps):
    return {"obs": observations(e, steps + 1), "action": actions(e, steps)}

def mine():
    for e, steps in enumerate(LENGTHS):
        yield episode(e, steps)

listed = [episode(e, steps) for e, steps in enumerate(LENGTHS)]
number = 3

def broken():
    yield episode(0, 3)
    raise KeyError("lost")

def short():
    yield {"obs": np.zeros((3, 3)), "action": np.zeros((3, 2))}
"""


def test_a_users_own_iterable(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    specs = {"obs_spec": ObservationSpec(dim=3), "action_spec": ActionSpec(dim=2)}
    for name in ("mine", "listed"):
        path = import_reference(f"{file}:{name}", tmp_path / name, **specs)
        folder = assert_holds(path, POINT)
        assert len(folder.manifest["made_by"]["source_sha256"]) == 64
    for name, message in (
        ("number", "number is a int; allowed: an iterable of episodes"),
        ("broken", "own.py, line 17 in broken: KeyError: 'lost'"),
        ("short", "episode 0: obs has 3 rows and action 3; allowed is one row more of obs"),
        ("absent", "has no 'absent'; it has "),
    ):
        with pytest.raises(UserError, match=message):
            import_reference(f"{file}:{name}", tmp_path / "none", **specs)
    assert not (tmp_path / "none").exists()


def test_a_missing_extra_is_named():
    with pytest.raises(
        UserError, match="no module 'not_there'; install the extra `data`: pip inst"
    ):
        extra("not_there")
