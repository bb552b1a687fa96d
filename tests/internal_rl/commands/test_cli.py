"""The command line: what a mistake is answered with, help, and the commands that do not train."""

import dataclasses
import json
import shutil
import typing
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import configs
from configs import credit as credit_presets
from internal_rl import pipeline
from internal_rl.commands import main as cli
from internal_rl.runs import loop
from internal_rl.runs.checkpoint import Checkpoints, import_params
from internal_rl.runs.config_io import config_to_json
from internal_rl.runs.run_dir import create
from internal_rl.stages import pretrain
from tests.internal_rl.conftest import contents
from tests.internal_rl.small import assert_trees_equal, models

SMOKE = ["--preset", "gridworld-smoke"]


def test_unknown_names(refused):
    refused(
        "pretrain", "--preset", "gridworld-labtop", "--run", "run",
        says=["'gridworld-labtop'", "did you mean 'gridworld-laptop'", "gridworld-paper"],
    )  # fmt: skip
    refused("pretrian", "--run", "run", says=["'pretrian'", "did you mean 'pretrain'", "evaluate"])
    refused("demo", "--preset=gridworld", says="did you mean 'gridworld-")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--env.heldout-tasks", "0", "24"],
            ["env.heldout_tasks", "'24'", "colour 4", "allows 0..3"],
        ),
        (["--env.pretrain-tasks", "019"], ["env.pretrain_tasks", "'019'", "colour 9"]),
        (["--env.heldout-tasks", "0a"], ["env.heldout_tasks", "'a' is not a colour"]),
        (
            ["--env.grid-size", "2"],
            ["env.num_objects=4", "= 6 cells", "at most grid_size"],
        ),
        (["--env.num-walls", "12"], ["num_walls=12", "17 cells"]),
        (["--env.horizon", "3"], ["horizon=3", "0123", "at least 4"]),
        (["--model.num-buckets", "7"], ["model.num_buckets is 7", "an even number"]),
        (["--pretrain.steps", "7"], ["pretrain.steps is 7", "multiple of runtime.log_every (2)"]),
        (["--pretrain.optimizer.learning-rate", "nan"], ["learning_rate is nan", "finite"]),
        (["--seeds", "0"], ["seeds is 0", "at least 1"]),
        (["--seed", "-1"], ["seed is -1", "at least 0"]),
    ],
)
def test_impossible_settings(refused, flags, says):
    refused("pretrain", *SMOKE, "--run", "run", *flags, says=says)


def test_settings_of_later_stages(refused, runs):
    base, meta = runs.base.path, runs.meta.path
    refused(
        "discover", "--base", base, "--run", "run", "--metacontroller.rank", "99",
        says=["metacontroller.rank is 99", "allowed"],
    )  # fmt: skip
    for layer in ("3", "-2"):
        refused(
            "discover", "--base", base, "--run", "run", "--discover.controlled-layer", layer,
            says=[f"discover.controlled_layer is {layer}", "allowed: 0 to the base model's depth (2)"],
        )  # fmt: skip
    refused(
        "reinforce", "--parent", meta, "--run", "run", "--heldout-tasks", "0129",
        says=["env.heldout_tasks", "'0129'", "colour 9"],
    )  # fmt: skip
    refused(
        "reinforce", "--parent", meta, "--run", "run", "--reinforce.minibatches", "3",
        says=["reinforce.batch_size is 8", "minibatches (3)"],
    )  # fmt: skip
    refused(
        "evaluate", "--run", meta, "--output", "x.json", "--tasks", "0129",
        says=["'0129'", "colour 9"],
    )  # fmt: skip
    refused(
        "evaluate", "--run", meta, "--output", "x.json", "--evaluate.episodes", "0",
        says="evaluate.episodes is 0",
    )  # fmt: skip
    refused(
        "evaluate", "--run", meta, "--output", "x.json", "--seeds", "0",
        says="seeds is 0; allowed: at least 1",
    )  # fmt: skip


def test_runs_of_the_wrong_stage(refused, runs):
    base, meta, internal = runs.base.path, runs.meta.path, runs.internal.path
    for stage, flag, wrong, expected in (
        ("discover", "--base", meta, "pretrain"),
        ("discover", "--base", internal, "pretrain"),
        ("reinforce", "--parent", base, "discover"),
        ("reinforce", "--parent", internal, "discover"),
    ):
        refused(
            stage, flag, wrong, "--run", "run",
            says=[str(wrong), "is a run of stage", f"expected stage '{expected}'"],
        )  # fmt: skip
    raw = ["--reinforce.method", "raw_action"]
    refused("reinforce", "--parent", meta, "--run", "run", *raw, says="expected stage 'pretrain'")
    refused("render", "--run", base, "--output", "figures", says="no metacontroller")


@pytest.mark.parametrize(
    ("command", "flag"), [("discover", "base"), ("reinforce", "parent"), ("evaluate", "run")]
)
def test_runs_of_another_family(refused, tmp_path, command, flag):
    config = credit_presets.get("cocoa-smoke", "reinforce")
    run = create(tmp_path / "credit", "credit", config)
    words = [command, f"--{flag}", run.path]
    words += [] if command == "evaluate" else ["--run", tmp_path / "r"]
    refused(*words, says=[f"--{flag}: {run.path} is a run of stage 'credit'; expected one of pre"])


def test_missing_parents(refused, tmp_path):
    refused("discover", "--run", "run", says="--base is missing")
    refused("reinforce", "--run", "run", says="--parent is missing")
    refused("evaluate", "--seeds", "3", says="--run is missing")
    refused("discover", "--base", "nowhere", "--run", "run", says="nowhere does not exist")
    refused("reinforce", "--parent", "nowhere", "--run", "run", says="nowhere does not exist")
    (tmp_path / "folder").mkdir()
    for command in ("evaluate", "render"):
        refused(command, "--run", "nowhere", says="run directory nowhere does not exist")
        refused(command, "--run", "folder", says="folder is not a run directory")
    refused("export", "--run", "nowhere", "--output", "x.safetensors", says="does not exist")
    refused("pretrain", *SMOKE, "--run", "nowhere", "--resume", says="nowhere does not exist")


def test_existing_names(refused, runs, tmp_path):
    shutil.copytree(runs.base.path, tmp_path / "base")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not a run")
    refused("pretrain", *SMOKE, "--run", "base", says=["run base exists", "--overwrite"])
    refused("pretrain", *SMOKE, "--run", "mine", "--overwrite", says="mine exists and is not a run")
    refused("discover", "--base", "base", "--run", "base", says="run base exists")
    refused(
        "discover", "--base", "base", "--run", "base", "--overwrite",
        says="would delete its own parent",
    )  # fmt: skip
    refused("demo", *SMOKE, "--scratch", "--run", "mine", says="mine exists and holds no demo")


def test_a_mistake_does_not_delete_what_overwrite_would_replace(refused, runs, tmp_path):
    shutil.copytree(runs.base.path, tmp_path / "base")
    flags = ["--run", "base", "--overwrite", "--model.num-buckets", "9"]
    refused("pretrain", *SMOKE, *flags, says="model.num_buckets is 9")


def damaged(run, folder):
    copy = shutil.copytree(run.path, folder)
    newest = copy / "checkpoints" / "8"
    largest = max(
        (f for f in newest.rglob("*") if f.is_file() and f.name != "manifest.json"),
        key=lambda f: f.stat().st_size,
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    return copy


def test_corrupt_checkpoints(refused, runs, tmp_path):
    base, meta = damaged(runs.base, tmp_path / "base"), damaged(runs.meta, tmp_path / "meta")
    corrupt = ["is corrupt", "differs from its checksum", "go on from step 4"]
    refused("discover", "--base", base, "--run", "run", says=corrupt)
    refused("reinforce", "--parent", meta, "--run", "run", says=corrupt)
    refused("evaluate", "--run", meta, says=corrupt)
    refused("export", "--run", base, "--output", "x.safetensors", says=corrupt)


def test_resume_from_a_corrupt_checkpoint(runs, tmp_path, capsys):
    base = damaged(runs.base, tmp_path / "base")
    before = contents(base)
    assert cli.main(["pretrain", *SMOKE, "--run", str(base), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "is corrupt" in error
    assert error.count("\n") == 1
    assert contents(base) == before


def test_half_written_checkpoints_do_not_count(refused, runs, tmp_path):
    base = shutil.copytree(runs.base.path, tmp_path / "base")
    (base / "checkpoints" / "8" / "manifest.json").unlink()  # killed while writing it
    run = type(runs.base)(base)
    with pytest.warns(UserWarning, match="weights of step 4 of 8"):
        four = pipeline.load_params(run)
    eight = pipeline.load_params(runs.base)
    assert (four["embed"]["kernel"] != eight["embed"]["kernel"]).any()
    (base / "checkpoints" / "4" / "manifest.json").unlink()
    refused("discover", "--base", base, "--run", "run", says="no checkpoint yet")


def test_an_untrained_parent_is_refused(refused, runs, tmp_path):
    """Interrupted before its first step, a run holds random weights."""
    base = create(tmp_path / "base", "pretrain", runs.config)
    state = jax.jit(lambda key: pretrain.init(runs.config.pretrain, models().base, key))(
        jax.random.key(0)
    )
    checkpoints = Checkpoints(base)
    checkpoints.save(0, state)
    checkpoints.close()
    for step_0 in (["discover", "--base", base.path], ["reinforce", "--parent", base.path]):
        raw = ["--reinforce.method", "raw_action"] if step_0[0] == "reinforce" else []
        refused(*step_0, "--run", "run", *raw, says="nothing is trained yet (step 0 of 8)")


def test_damaged_run_directories(refused, runs, tmp_path):
    base = shutil.copytree(runs.base.path, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["model"]["widht"] = 3
    (base / "config.json").write_text(json.dumps(config))
    refused("discover", "--base", base, "--run", "run", says="unknown field(s) model.widht")
    (base / "config.json").write_text("{")
    refused("discover", "--base", base, "--run", "run", says="config.json cannot be read")


def test_wrong_types_of_flags(tmp_path, monkeypatch, capsys):
    """The flag parser answers these itself."""
    monkeypatch.chdir(tmp_path)
    for flags in (["--pretrain.steps", "many"], ["--modle.width", "3"], ["--model.mixer", "lstm"]):
        assert cli.main(["pretrain", *SMOKE, "--run", "run", *flags]) == 2
        captured = capsys.readouterr()
        assert flags[0] in captured.err
        assert captured.out == ""
    assert cli.main(["pretrain", *SMOKE]) == 2
    assert "--run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def flags_of(defaults, prefix=""):
    """Of a union of configs, those of the one that the defaults hold."""
    for field in dataclasses.fields(defaults):
        name, value = f"{prefix}{field.name.replace('_', '-')}", getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            yield from flags_of(value, f"{name}.")
        else:
            yield f"--{name}"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_explains_every_field(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    shown = captured.out
    chosen = cli.module(command)
    assert chosen.Command.__doc__.splitlines()[0] in shown
    expected = list(flags_of(chosen.defaults(["--help"])))
    assert len(expected) > 3
    for flag in expected:
        base, _, name = flag.rpartition(".")
        negated = f"{base}.no-{name}" if base else f"--no-{flag[2:]}"
        assert flag in shown or negated in shown, flag
    # Every field has a text beside it.
    for cls in (chosen.Command, *_nested(chosen.Command)):
        for field, text in documented(cls):
            assert text, f"{cls.__name__}.{field} has no help text"


def _nested(cls):
    """Every config class below `cls`; of a union, all of its members."""
    for field in dataclasses.fields(cls):
        for kind in typing.get_args(field.type) or (field.type,):
            if dataclasses.is_dataclass(kind):
                yield kind
                yield from _nested(kind)


def documented(cls):
    """Fields and the string below each of them, from the source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    for this, below in zip(body, [*body[1:], None], strict=True):
        # Fields that hold other configs are explained by those.
        if isinstance(this, ast.AnnAssign) and "Config" not in ast.unparse(this.annotation):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            yield this.target.id, below.value.value if is_text else ""


def test_usage(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in (*cli.COMMANDS, *cli.FAMILIES, *configs.names()):
        assert name in shown
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_flags_override_the_preset_and_the_parent(runs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "run", lambda *_, **settings: seen.append(settings))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", *SMOKE, "--run", "a", "--model.width", "8", "--seed", "3"]) == 0
    config = pipeline.run_dir.open_run("a").config
    assert (config.model.width, config.seed, config.pretrain.batch_size) == (8, 3, 4)
    assert config.env.pretrain_tasks == configs.get("gridworld-smoke").env.pretrain_tasks
    parent = ["--parent", str(runs.meta.path)]
    flags = ["--heldout-tasks", "10", "--reinforce.clip", "0.1", "--seeds", "2"]
    assert cli.main(["reinforce", *parent, "--run", "b", *flags]) == 0
    run = pipeline.run_dir.open_run("b")
    assert run.config.env.heldout_tasks == ("10",)
    assert run.config.reinforce.clip == 0.1
    assert run.config.model == runs.config.model
    assert run.info["num_seeds"] == 2
    assert seen[-1]["seeds_axis"]
    # Another preset's settings for this stage only.
    other = ["--preset", "gridworld-laptop"]
    steps = ["--discover.steps", "4", "--discover.tail-steps", "0"]
    logs = ["--runtime.log-every", "2", "--runtime.checkpoint-every", "4"]
    alone = ["--discover.candidates", "1", "--discover.select-steps", "0"]
    rest = ["--run", "c", *other, *steps, *alone, *logs]
    code = cli.main(["discover", "--base", str(runs.base.path), *rest])
    assert code == 0
    config = pipeline.run_dir.open_run("c").config
    assert config.discover.kl_weight == configs.get("gridworld-laptop").discover.kl_weight
    assert config.model == runs.config.model


def test_evaluate_writes_what_it_measured(runs, tmp_path, capsys):
    output = tmp_path / "out.json"
    command = ["evaluate", "--run", str(runs.internal.path), "--output", str(output)]
    assert cli.main([*command, "--tasks", "0", "1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    result = json.loads(output.read_text())
    assert shown == result
    assert result["tasks"] == ["0", "1"]
    summary = result["internal_rl"]
    assert 0 <= summary["success_iqm"] <= 1
    low, high = summary["ci95"]
    assert 0 <= low <= high <= 1
    assert summary["evaluation_episodes"] == 16
    before = output.read_bytes()
    assert cli.main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert cli.main([*command, "--overwrite", "--tasks", "0"]) == 0
    assert json.loads(output.read_text())["tasks"] == ["0"]


def test_evaluation_lies_in_the_run_by_default(runs, tmp_path, capsys):
    copy = shutil.copytree(runs.meta.path.parent, tmp_path / "runs") / runs.meta.path.name
    command = ["evaluate", "--run", str(copy), "--seeds", "2"]
    assert cli.main(command) == 0
    result = json.loads((copy / "evaluation.json").read_text())
    assert result["prior_sampling"]["seeds"] == 2
    assert result["replayed_codes"]["seeds"] == 2
    assert set(result["switching"]) >= {"precision", "recall", "f1"}
    assert result["tasks"] == list(runs.config.env.heldout_tasks)
    capsys.readouterr()


def test_render_draws_and_does_not_overwrite(runs, tmp_path, capsys):
    import imageio.v3 as imageio

    folder = tmp_path / "pictures"
    command = ["render", "--run", str(runs.internal.path), "--output", str(folder)]
    assert cli.main(command) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == [folder / "episode.gif", folder / "switching.png"]
    frames = imageio.imread(folder / "episode.gif")
    assert frames.ndim == 4
    assert len(np.unique(frames)) > 10
    assert imageio.imread(folder / "switching.png").std() > 1
    before = contents(folder)
    assert cli.main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert contents(folder) == before


def test_export_writes_weights_that_come_back(runs, tmp_path, capsys):
    output = tmp_path / "meta.safetensors"
    command = ["export", "--run", str(runs.meta.path), "--output", str(output)]
    assert cli.main(command) == 0
    weights = pipeline.load_params(runs.meta)
    back, metadata = import_params(output, weights)
    assert_trees_equal(back, weights)
    assert metadata["stage"] == "discover"
    assert metadata["settings"] == config_to_json(runs.config.discover)
    assert metadata["git"] == runs.meta.info["git"]
    assert "decoder/hidden/kernel" in load_file(output)
    before = contents(tmp_path)
    assert cli.main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert contents(tmp_path) == before
    flags = ["--seed-index", "1", "--output", str(tmp_path / "other.safetensors")]
    assert cli.main([*command[:3], *flags]) == 2
    assert "no seed 1; allowed: 0..0" in capsys.readouterr().err
    assert contents(tmp_path) == before
