"""One writer per run directory, and runs that go on only as long as their parents are the same."""

import json
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.runs import run_dir
from internal_rl.runs.lock import writer

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
import uuid
from pathlib import Path
from internal_rl.runs.lock import writer
with writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held():
    """`held(path)`: another process that writes there."""
    processes = []

    def hold(path):
        command = [sys.executable, "-c", HOLD, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path, held):
    first = held(tmp_path)
    with (
        pytest.raises(UserError, match=rf"{tmp_path} is being written by another process"),
        writer(tmp_path),
    ):
        pass
    first.send_signal(signal.SIGKILL)  # with no time to clean up
    first.wait()
    with writer(tmp_path):
        pass


def test_a_second_resume_is_refused(refused, runs, tmp_path, held):
    base = shutil.copytree(runs.base.path, tmp_path / "base")
    held(base)
    command = ["pretrain", "--preset", "gridworld-smoke", "--run", base]
    refused(*command, "--resume", says=f"{base} is being written by another process; wait for it")


def test_a_run_that_is_being_written_is_not_replaced(tmp_path, held):
    run = run_dir.create(tmp_path / "run", "pretrain", Config())
    (run.path / "mine").touch()
    held(run.path)
    with pytest.raises(UserError, match="is being written by another process"):
        run_dir.create(run.path, "pretrain", Config(), overwrite=True)
    assert (run.path / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with (
        pytest.raises(UserError, match=r"run directory .*nowhere cannot be written to"),
        writer(tmp_path / "nowhere"),
    ):
        pass


def finish(run, loss, step=8):
    """As if the run had been trained to this step. Its checkpoints differ even if the same training is repeated."""
    run.metrics_file.write_text(json.dumps({"step": step, "loss": loss}))
    folder = run.checkpoints_dir / str(step)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"files": {uuid.uuid4().hex: ""}}))


def test_a_parent_that_was_trained_again_is_refused(tmp_path):
    parent = run_dir.create(tmp_path / "parent", "pretrain", Config())
    finish(parent, "first")
    child = run_dir.create(tmp_path / "child", "discover", Config(), parents={"pretrain": parent})
    run_dir.check_parents(child)
    # Of the same config, but with other weights; then of another config; then further.
    says = f"{parent.path} is not the run that {child.path} was built on: it was trained again"
    finish(parent, "second")
    with pytest.raises(UserError, match=says):
        run_dir.check_parents(child)
    again = run_dir.create(parent.path, "pretrain", Config(seed=1), overwrite=True)
    finish(again, "first")
    with pytest.raises(UserError, match=says):
        run_dir.check_parents(child)
    again = run_dir.create(parent.path, "pretrain", Config(), overwrite=True)
    finish(again, "first")
    run_dir.check_parents(child)  # put back
    finish(again, "further", step=16)
    with pytest.raises(UserError, match=says):
        run_dir.check_parents(child)


def test_runs_from_before_fingerprints_go_on(tmp_path):
    parent = run_dir.create(tmp_path / "parent", "pretrain", Config())
    child = run_dir.create(tmp_path / "child", "discover", Config(), parents={"pretrain": parent})
    finish(parent, "later")
    info = child.info
    del info["parents"]["pretrain"]["fingerprint"]
    run_dir.write_json(child.path / "run.json", info)
    run_dir.check_parents(child)


def test_a_run_whose_parent_was_trained_again_does_not_go_on(refused, runs, tmp_path):
    for run in (runs.base, runs.meta):
        shutil.copytree(run.path, tmp_path / run.path.name)
    base, meta = (tmp_path / run.path.name for run in (runs.base, runs.meta))
    (base / "checkpoints" / "8" / "manifest.json").unlink()  # only trained to step 4
    refused(
        *("discover", "--base", base, "--run", meta, "--resume"),
        says=[f"{base.resolve()} is not the run that {meta} was built on", "put it back"],
    )
