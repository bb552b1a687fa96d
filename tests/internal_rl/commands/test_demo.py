"""The whole demo with the smoke preset: what it writes, goes on with, and starts from."""

import dataclasses
import json
import shutil
from importlib import resources

import pytest

import configs
from internal_rl import demo, pipeline
from internal_rl.commands import main as cli
from internal_rl.runs import loop
from internal_rl.runs.checkpoint import export_params, read_metadata
from internal_rl.runs.config_io import config_to_json
from internal_rl.runs.run_dir import open_run
from tests.internal_rl.conftest import contents
from tests.internal_rl.killed import assert_survives_an_error
from tests.internal_rl.small import assert_trees_equal

COMMAND = ["demo", "--preset", "gridworld-smoke", "--seeds", "2", "--no-progress"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo folder made from scratch."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert cli.main([*COMMAND, "--scratch", "--run", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_summary_has_every_number_that_was_asked_for(finished):
    summary = json.loads((finished / "summary.json").read_text())
    for method in ("internal_rl", "raw_action", "prior_sampling"):
        numbers = summary["methods"][method]
        low, high = numbers["ci95"]
        assert 0 <= low <= numbers["success_iqm"] <= high <= 1
        assert numbers["episodes"] == (0 if method == "prior_sampling" else 8 * 8)
    for name in ("precision", "recall", "f1"):
        assert 0 <= summary["switching"][name] <= 1
    assert 0 <= summary["steering"]["success"] <= 1
    assert summary["seeds"] == 2
    for stage in ("pretrain", "discover", "reinforce", "evaluate"):
        assert summary["wall_seconds"][stage] > 0
    assert summary["env_steps_per_second"] > 0
    assert summary["oracle_nats_per_step"]["expert"] < summary["oracle_nats_per_step"]["bayes"]
    assert summary["tasks"] == list(configs.get("gridworld-smoke").env.heldout_tasks)


@pytest.mark.slow
def test_report_shows_figures_that_exist(finished):
    report = (finished / "report.md").read_text()
    for figure in ("learning_curves.png", "switching.png", "episode.gif", "losses.png"):
        assert f"(figures/{figure})" in report
        assert (finished / "figures" / figure).stat().st_size > 1000
    assert "| internal RL | 64 |" in report
    assert "| raw-action RL | 64 |" in report
    for stage in ("pretrain", "discover", "reinforce_internal", "reinforce_raw_action"):
        run = open_run(finished / stage)
        assert run.info["status"] == "done"


@pytest.mark.slow
def test_going_on_trains_nothing_again(finished, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(finished, tmp_path / "demo")
    before = contents(folder)
    assert cli.main([*COMMAND, "--scratch", "--run", str(folder)]) == 2
    assert "exists; pass --resume" in capsys.readouterr().err
    assert cli.main([*COMMAND, "--run", str(folder), "--scratch", "--resume", "--seeds", "3"]) == 2
    assert "another config or other flags" in capsys.readouterr().err
    assert contents(folder) == before

    def no_training(*_, **__):
        raise AssertionError("a finished stage was trained again")

    monkeypatch.setattr(loop, "run", no_training)
    measured = json.loads((folder / "summary.json").read_text())
    monkeypatch.setattr(demo, "_measure", lambda *_: dict(measured))
    assert cli.main([*COMMAND, "--scratch", "--run", str(folder), "--resume"]) == 0
    again = json.loads((folder / "summary.json").read_text())
    assert again["methods"] == measured["methods"]
    assert again["wall_seconds"]["pretrain"] == measured["wall_seconds"]["pretrain"]

    # A stage that was interrupted counts the seconds of all its sittings, as its own log has them.
    monkeypatch.undo()
    monkeypatch.setattr(demo, "_measure", lambda *_: dict(measured))
    log = json.loads((folder / "demo.json").read_text())
    del log["seconds"]["reinforce_raw_action"]
    (folder / "demo.json").write_text(json.dumps(log))
    assert cli.main([*COMMAND, "--scratch", "--run", str(folder), "--resume"]) == 0
    seconds = json.loads((folder / "demo.json").read_text())["seconds"]
    sittings = loop.timing_totals(open_run(folder / "reinforce_raw_action"))
    assert seconds["reinforce_raw_action"] == sum(sittings.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["internal", "raw_action"])
def test_error_and_resume_equals_an_uninterrupted_run(finished, tmp_path, method):
    """RL with two seeds, against the demo's own runs."""
    parent = finished / {"internal": "discover", "raw_action": "pretrain"}[method]
    command = ["reinforce", "--parent", str(parent), "--seeds", "2", "--reinforce.method", method]
    whole = open_run(finished / f"reinforce_{method}")
    assert_survives_an_error(command, whole, tmp_path / "killed")


def test_packaged_weights_stand_in_for_the_first_two_stages(runs, tmp_path, monkeypatch):
    config = dataclasses.replace(runs.config, name="shipped")
    source = tmp_path / "configs" / demo.PACKAGED_WEIGHTS / "shipped"
    for stage, run in (("pretrain", runs.base), ("discover", runs.meta)):
        settings = {"settings": {"batch_size": 7}}
        export_params(source / f"{stage}.safetensors", pipeline.load_params(run), settings)
    files = resources.files
    monkeypatch.setattr(
        resources, "files", lambda name: tmp_path / name if name == "configs" else files(name)
    )
    base = demo.import_packaged(config, "pretrain", tmp_path / "base", None)
    meta = demo.import_packaged(config, "discover", tmp_path / "meta", base)
    frozen = pipeline.load_frozen(meta)
    assert_trees_equal(frozen.base, pipeline.load_params(runs.base))
    assert_trees_equal(frozen.metacontroller, pipeline.load_params(runs.meta))
    assert meta.info["status"] == "done"
    # The run says how its weights were made, whatever the preset says.
    assert base.config.pretrain.batch_size == meta.config.discover.batch_size == 7
    assert config.pretrain.batch_size != 7


SHIPPED = [
    name
    for name in configs.names()
    if (resources.files("configs") / demo.PACKAGED_WEIGHTS / name).is_dir()
]


@pytest.mark.parametrize("preset", SHIPPED)
def test_weights_in_the_package_fit_their_preset(preset, tmp_path):
    """Whatever is shipped, both stages are, they load, and together they weigh at most 4 MB."""
    config = configs.get(preset)
    folder = resources.files("configs") / demo.PACKAGED_WEIGHTS / preset
    base = demo.import_packaged(config, "pretrain", tmp_path / "base", None)
    meta = demo.import_packaged(config, "discover", tmp_path / "meta", base)
    for stage, run in (("pretrain", base), ("discover", meta)):
        with resources.as_file(folder / f"{stage}.json") as description:
            metadata = read_metadata(description)
        made = config_to_json(getattr(run.config, stage))
        assert {name: made[name] for name in metadata["settings"]} == metadata["settings"]
        assert len(metadata["git"]["commit"]) == 40
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size <= 4 * 2**20
