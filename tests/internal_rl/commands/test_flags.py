"""What every command does about resuming and about files that are in its way."""

import shutil

from internal_rl import pipeline
from internal_rl.commands import main as cli
from internal_rl.runs import loop
from internal_rl.runs.run_dir import open_run
from tests.internal_rl.small import assert_trees_equal, changed

SMOKE = ["--preset", "gridworld-smoke"]


def test_a_resumed_run_keeps_its_settings(refused, runs, tmp_path):
    base = shutil.copytree(runs.base.path, tmp_path / "base")
    resume = ["pretrain", *SMOKE, "--run", base, "--resume"]
    refused(
        *resume, "--pretrain.steps", "16", "--seeds", "5",
        says=["pretrain.steps is 16; allowed with --resume: 8", "seeds is 5", "with --resume: 1"],
    )  # fmt: skip
    refused(*resume, "--overwrite", says="overwrite is True; allowed with --resume: False")
    refused(
        "pretrain", "--preset", "gridworld-laptop", "--run", base, "--resume",
        says="preset is 'gridworld-laptop'; allowed with --resume: 'gridworld-smoke'",
    )  # fmt: skip
    refused(*resume, "--seed", "9", says="seed is 9; allowed with --resume: 0")
    meta = ["discover", "--run", runs.meta.path, "--resume"]
    refused(*meta, "--discover.kl-weight", "7", says="discover.kl_weight is 7.0; allowed with")
    internal = ["reinforce", "--run", runs.internal.path, "--resume"]
    refused(*internal, "--heldout-tasks", "1032", says="env.heldout_tasks is ('1032',); allowed")


def test_a_resumed_run_may_be_told_its_settings_again(runs, monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *_, **__: None)
    base, meta, internal = runs.base.path, runs.meta.path, runs.internal.path
    again = ["--seed", "0", "--seeds", "1", "--resume", "--no-progress"]
    assert cli.main(["pretrain", *SMOKE, "--run", str(base), "--pretrain.steps", "8", *again]) == 0
    assert cli.main(["pretrain", "--run", str(base), "--resume"]) == 0
    assert cli.main(["discover", "--run", str(meta), "--discover.steps", "8", *again]) == 0
    # A preset does not stand for settings that the run was started without.
    assert cli.main(["reinforce", *SMOKE, "--run", str(internal), "--resume"]) == 0
    tasks = ["--heldout-tasks", *runs.config.env.heldout_tasks]
    assert cli.main(["reinforce", "--run", str(internal), *tasks, *again]) == 0


def test_outputs_in_the_way(refused, runs, tmp_path):
    meta = runs.meta.path
    (tmp_path / "w.json").write_text("precious")
    (tmp_path / "folder").mkdir()
    export = ["export", "--run", meta, "--output"]
    refused(
        *export, "w.safetensors", says="w.json exists; choose another name, or pass --overwrite"
    )
    refused(*export, "other.json", says="output is other.json; allowed: another suffix")
    refused(
        *export, "folder", "--overwrite", says="folder is a folder; allowed: the name of a file"
    )
    evaluate = ["evaluate", "--run", meta, "--output"]
    refused(*evaluate, "w.json", says="w.json exists")
    refused(*evaluate, "w.json/x.json", says="w.json/x.json cannot be written")
    refused("pretrain", *SMOKE, "--run", "w.json/run", says="run directory w.json/run cannot be")


def test_parents_that_were_moved(refused, runs, tmp_path):
    meta = shutil.copytree(runs.meta.path, tmp_path / "elsewhere" / "meta")
    refused("evaluate", "--run", meta, says=[f"{meta} builds on run", "does not exist", "together"])


def test_a_parent_that_was_trained_again(refused, runs, tmp_path, monkeypatch, capsys):
    """Its child would go on with weights that it did not start from."""
    folder = shutil.copytree(runs.base.path.parent, tmp_path / "moved")
    base, meta = folder / runs.base.path.name, folder / runs.meta.path.name
    resume = ["discover", "--run", meta, "--resume"]
    used = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", lambda *_, frozen, **__: used.append(frozen[0]))
        assert cli.main([*map(str, resume), "--no-progress"]) == 0  # moved together, all is well
    assert_trees_equal(used[0], pipeline.load_params(runs.base))
    capsys.readouterr()

    says = [f"{base.resolve()} is not the run that {meta} was built on", "trained again or further"]
    pipeline.run_pretrain(changed(runs.config, seed=1), base, overwrite=True, progress=False)
    refused(*resume, says=says)
    # Under the same settings, too: weights tell.
    shutil.copy(runs.base.path / "config.json", base / "config.json")
    assert open_run(base).config == runs.base.config
    refused(*resume, says=says)
