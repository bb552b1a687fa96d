import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from internal_rl.config import Config, PinpadConfig
from internal_rl.errors import UserError
from internal_rl.runs import run_dir

CONFIG = Config(seed=7, env=PinpadConfig(pretrain_tasks=("032",), heldout_tasks=("0123",)))


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_explains_itself(tmp_path):
    run = run_dir.create(tmp_path / "a" / "pretrain", "pretrain", CONFIG, num_seeds=3)
    reopened = run_dir.open_run(run.path, "pretrain")
    assert reopened.config == CONFIG
    info = reopened.info
    assert (info["stage"], info["status"], info["seed"], info["num_seeds"]) == (
        *("pretrain", "running"),
        *(7, 3),
    )
    assert info["device"] == {"platform": "cpu", "kind": "cpu", "count": 2}
    assert info["versions"]["jax"]
    assert info["created"].endswith("+00:00")
    assert info["git"].keys() == {"commit", "dirty"}
    names = {p.name for p in run.path.iterdir()}
    assert names == {
        *("run.json", "config.json", "metrics.jsonl", "timing.jsonl"),
        *("tensorboard", "checkpoints", "figures", ".lock"),
    }
    run.set_status("done")
    assert run_dir.open_run(run.path).info == info | {"status": "done"}
    assert [p.name for p in run.path.parent.iterdir()] == ["pretrain"]  # no temporary folders


def test_parents_are_relative_so_that_a_tree_can_be_moved(tmp_path):
    parent = run_dir.create(tmp_path / "tree" / "pretrain", "pretrain", CONFIG)
    child = run_dir.create(
        tmp_path / "tree" / "x" / "discover", "discover", CONFIG, parents={"pretrain": parent}
    )
    assert child.info["parents"]["pretrain"]["path"] == "../../pretrain"
    assert child.info["parents"]["pretrain"]["git"] == parent.info["git"]
    (tmp_path / "tree").rename(tmp_path / "moved")
    moved = run_dir.open_run(tmp_path / "moved" / "x" / "discover")
    assert moved.parent("pretrain").config == CONFIG
    with pytest.raises(UserError, match=r"no parent run 'reinforce' is recorded.*pretrain"):
        moved.parent("reinforce")


def test_an_existing_name_is_refused_and_nothing_touched(tmp_path):
    run = run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    (run.path / "metrics.jsonl").write_text("precious\n")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"run .* exists; choose another name, or pass --overwrite"):
        run_dir.create(run.path, "pretrain", CONFIG)
    assert snapshot(tmp_path) == before


def test_overwrite_replaces_a_run(tmp_path):
    run = run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    (run.checkpoints_dir / "junk").write_text("old")
    new = run_dir.create(run.path, "discover", CONFIG, overwrite=True)
    assert new.stage == "discover"
    assert list(new.checkpoints_dir.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_overwrite_never_deletes_anything_else(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    (folder / "run.json").write_text('{"stage": "not ours"}')
    link = tmp_path / "link"
    link.symlink_to(run_dir.create(tmp_path / "real", "pretrain", CONFIG).path)
    file = tmp_path / "file"
    file.write_text("x")
    before = snapshot(tmp_path)
    for path in (folder, link, file):
        with pytest.raises(UserError, match="not a run directory"):
            run_dir.create(path, "pretrain", CONFIG, overwrite=True)
    assert snapshot(tmp_path) == before


def test_overwrite_never_deletes_a_parent(tmp_path):
    parent = run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    with pytest.raises(UserError, match="its own parent run"):
        run_dir.create(
            parent.path, "discover", CONFIG, overwrite=True, parents={"pretrain": parent}
        )
    assert run_dir.open_run(parent.path, "pretrain")


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    assert run_dir.create(tmp_path / "empty", "pretrain", CONFIG).stage == "pretrain"


def test_failed_creation_leaves_nothing(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Bad:
        value: object = object()

    run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    before = snapshot(tmp_path)
    with pytest.raises(TypeError, match="plain values"):
        run_dir.create(tmp_path / "run", "pretrain", Bad(), overwrite=True)
    assert snapshot(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        run_dir.open_run(tmp_path / "absent")
    with pytest.raises(UserError, match="is not a run directory"):
        run_dir.open_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="is not a run directory"):
        run_dir.open_run(tmp_path)


def test_the_wrong_stage(tmp_path):
    run = run_dir.create(tmp_path / "run", "discover", CONFIG)
    with pytest.raises(UserError, match="a run of stage 'discover'; expected stage 'pretrain'"):
        run_dir.open_run(run.path, "pretrain")


def test_another_schema_version(tmp_path):
    run = run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    run_dir.write_json(run.path / "run.json", run.info | {"schema_version": 99})
    with pytest.raises(UserError, match="schema version 99; this code reads version 1"):
        run_dir.open_run(run.path)


def test_a_damaged_config_names_the_file(tmp_path):
    run = run_dir.create(tmp_path / "run", "pretrain", CONFIG)
    data = json.loads((run.path / "config.json").read_text())
    del data["env"]["horizon"]
    run_dir.write_json(run.path / "config.json", data)
    with pytest.raises(
        UserError, match=r"config\.json.*: missing field\(s\) env\.horizon; .* another version"
    ):
        _ = run.config
    (run.path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        _ = run.config


def test_json_is_written_whole_or_not_at_all(tmp_path):
    run_dir.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        run_dir.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_git_state(tmp_path, monkeypatch):
    """None outside a checkout and for an untracked copy in somebody's repository; else commit and
    dirty flag."""
    module = tmp_path / "run_dir.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr(run_dir, "__file__", str(module))
    fresh = run_dir.git_state.__wrapped__
    assert fresh() == {"commit": None, "dirty": None}
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    assert fresh() == {"commit": None, "dirty": None}
    git(tmp_path, "add", module.name)
    git(tmp_path, "commit", "-q", "-m", "y")
    state = fresh()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    module.write_text("x = 2\n")
    assert fresh() == state | {"dirty": True}


def test_paths_may_be_strings(tmp_path):
    run = run_dir.create(str(tmp_path / "run"), "pretrain", CONFIG)
    assert isinstance(run.path, Path)
    assert run_dir.is_run(str(run.path))
