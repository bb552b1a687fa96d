"""Whatever is wrong with a folder of demonstrations is found, and said in one line."""

import json
import re

import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import sha256
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.folder_check import check_folder, histogram
from internal_rl.errors import UserError
from tests.internal_rl.demonstrations.known import LENGTHS
from tests.internal_rl.demonstrations.test_recorded_disk import written


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "data")


def change(folder, name, function):
    """Change one array of a folder so that only its values are wrong: the manifest fits the file."""
    file = folder / f"{name}.npy"
    array = function(np.load(file))
    np.save(file, array)
    facts = {"dtype": str(array.dtype), "shape": list(array.shape)}
    facts |= {"bytes": file.stat().st_size, "sha256": sha256(file)}
    edit(folder, lambda manifest: manifest["files"].__setitem__(name, facts))


def edit(folder, function):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    function(manifest)
    file.write_text(json.dumps(manifest))


def put(index, value):
    def function(array):
        array[index] = value
        return array

    return function


def only_problem(folder, *args):
    report = check_folder(folder, *args)
    assert len(report.problems) == 1, report.problems
    assert "\n" not in report.problems[0]
    assert "1 problem" in str(report)
    return report.problems[0]


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        (
            "obs",
            put((9, 1), np.nan),
            "obs, episode 1, row 5: number 1 is nan; allowed: finite numb",
        ),
        (
            "obs",
            put((16, 2), np.inf),
            "obs, episode 3, row 4: number 2 is inf; allowed: finite num",
        ),
        ("action", put((8, 0), 0.75), "action, episode 2, row 0: number 0 is 0.75; allowed: -0.5"),
        ("goal", put(3, -7), "goal, episode 1, row 0: is -7; allowed: -1 to"),
        ("task", put(1, -2), "task, episode 1: is -2; allowed: -1 to"),
        ("reward", put(12, np.nan), "reward, episode 3, row 3: is nan; allowed: finite numbers"),
        ("obs", lambda a: a.astype("f8"), "obs.npy has dtype float64; allowed is float32"),
        ("obs", lambda a: a[:-1], r"obs.npy has shape \(16, 3\); allowed is \(17, 3\) \(one more"),
        ("action", lambda a: a[:-1], r"action.npy has shape \(12, 2\); allowed is \(13, 2\)"),
        ("goal", lambda a: a[:-1], r"goal.npy has shape \(12,\); allowed is \(13,\)"),
        ("task", lambda a: a[:-1], r"task.npy has shape \(3,\); allowed is \(4,\)"),
        ("starts", put(2, 2), r"starts\[2\] is 2, below starts\[1\] = 3"),
        ("starts", put(2, 3), "episode 1 is empty; allowed are 1 action or more"),
        ("starts", put(0, 1), r"starts\[0\] is 1; allowed is 0"),
        ("starts", lambda a: a[:1], r"starts.npy has shape \(1,\); allowed is \(E \+ 1,\) with E"),
    ],
)
def test_wrong_values_are_found(folder, name, function, message):
    change(folder, name, function)
    problem = only_problem(folder)
    assert re.search(message, problem), problem


def test_damaged_files_are_found(folder):
    file = folder / "action.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "action.npy is damaged: its SHA-256 differs" in only_problem(folder)
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_folder(folder)
    assert open_folder(folder, verify=False).episodes == 4
    file.write_bytes(content[:-1])
    assert "action.npy is damaged: 231 bytes, the manifest says 232" in only_problem(folder)
    file.unlink()
    assert "action.npy is missing; the manifest lists it" in only_problem(folder)
    file.write_bytes(b"not an array" + bytes(len(content) - 12))
    problems = check_folder(folder).problems
    assert "SHA-256" in problems[0]
    assert "action.npy is no .npy file" in problems[1]


def test_facts_of_the_manifest_are_checked(folder):
    def wrong(manifest):
        manifest["obs_statistics"]["mean"][1] += 0.5
        manifest["num_goals"] = 1

    edit(folder, wrong)
    problems = check_folder(folder).problems
    assert "the manifest says num_goals is 1, the files 2" in problems[0]
    assert "the manifest says the mean of observation number 1 is" in problems[1]
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2; this version reads 1"),
        ({"schema": "other"}, "schema is 'other'; allowed: 'internal-rl-demonstrations'"),
        ({"episodes": "four"}, "episodes is 'four'; allowed: int"),
        ({"episodes": 5}, "the manifest says 5 episodes, starts.npy 4"),
        ({"files": {}}, "lists no file of obs"),
        ({"obs_spec": {"dim": 0}}, "dim=0: allowed is 1 or more"),
        ({"obs_spec": {"size": 3}}, "unexpected keyword argument 'size'"),
        ({"obs_statistics": None}, "obs_statistics is None; allowed: mean and std, 3 each"),
        ({"action_range": [1]}, r"action_range is \[1\]; allowed: two numbers"),
        ({"obs_statistics": {"mean": [0], "std": [1]}}, r"mean has shape \(1,\); allowed: \(3,\)"),
    ],
)
def test_wrong_manifests_are_found(folder, update, message):
    edit(folder, lambda manifest: manifest.update(update))
    with pytest.raises(UserError, match=message):
        open_folder(folder)
    assert check_folder(folder).problems


def test_no_folder_no_manifest_no_json(folder, tmp_path):
    assert "nothing is no folder; allowed: one made by" in only_problem(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "which is empty; allowed: a folder made by" in only_problem(tmp_path / "empty")
    (folder / "manifest.json").write_text("{")
    assert "manifest.json is not valid JSON" in only_problem(folder)
    (folder / "manifest.json").write_text("[]")
    assert "schema is None" in only_problem(folder)
    (folder / "manifest.json").unlink()
    assert "which has no manifest.json" in only_problem(folder)


def test_files_that_the_manifest_leaves_out(folder):
    edit(folder, lambda manifest: manifest["files"].pop("goal"))
    assert "does not list goal.npy, which lies beside it" in only_problem(folder)
    (folder / "goal.npy").unlink()
    edit(folder, lambda manifest: manifest.update(num_goals=0))
    assert not check_folder(folder).problems
    edit(folder, lambda manifest: manifest["files"].update(note={}))
    assert "files has 'note'; allowed: obs, action, goal" in only_problem(folder)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            (ObservationSpec(dim=4), None),
            "one observation is 3 real numbers; the world's is 4 real",
        ),
        ((ObservationSpec(num_tokens=9), None), "the world's is one of 9 tokens"),
        (
            (None, ActionSpec(num_actions=4)),
            "one action is 2 real numbers; the world's is one of 4",
        ),
        (
            (None, ActionSpec(dim=2, low=-0.25)),
            "actions reach from -0.5 to 0.5; the world's may be",
        ),
        ((None, None, 1), "goals go up to 1; the world's go up to 0"),
    ],
)
def test_another_world(folder, specs, message):
    assert message in only_problem(folder, *specs)


def test_the_report_draws_the_lengths(folder):
    report = check_folder(folder)
    assert str(report).splitlines() == [
        "4 episodes, 13 steps, 0.0 MB",
        "observation: 3 real numbers",
        "action: 2 real numbers from -0.5 to 0.5",
        "labels: goal, subgoal, task, reward (2 goals)",
        "length: 1 to 5, mean 3.2",
        *histogram(np.array(LENGTHS)),
        f"{folder}: nothing is wrong",
    ]
    full, none = "█" * 40, ""
    assert histogram(np.array(LENGTHS)) == [
        f"  1  {full} 1",
        f"  2  {none} 0",
        f"  3  {full} 1",
        f"  4  {full} 1",
        f"  5  {full} 1",
    ]


def test_a_histogram_counts_every_length_once():
    lengths = np.random.default_rng(0).integers(7, 1000, size=5000)
    lines = histogram(lengths)
    assert len(lines) <= 10
    total = 0
    for line in lines:
        low, high = (int(x) for x in line.split("█")[0].split()[0].split("-"))
        inside = ((lengths >= low) & (lengths <= high)).sum()
        assert int(line.split()[-1]) == inside
        total += inside
    assert total == 5000
