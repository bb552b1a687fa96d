"""The three steps of predictive agents: runs that build on runs, their figure, and resuming on the command line."""

import importlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from internal_rl.commands.main import main
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.run_dir import create, open_run
from internal_rl.runs.train import initial
from internal_rl.social.config import PredictiveConfig
from internal_rl.social.pipeline import _predictive_init, load_predictive

SCRIPTS = Path(__file__).parents[3] / "scripts"
STEP2 = ["--agents.opponent", "frozen", "--agents.tabular-share", "0"]
STEP3 = ["--agents.start", "parent", "--agents.tabular-share", "0"]


def train(run, *flags):
    command = ["social", "predictive", "--preset", "ppi-smoke", "--no-progress"]
    return main([*command, "--run", str(run), *flags])


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("reproductions.ppi_steps")


@pytest.fixture(scope="module")
def made(figures, tmp_path_factory):
    """Folder of the smoke figure: figure.json, and runs of the three steps, two seeds each."""
    folder = tmp_path_factory.mktemp("steps")
    figures.steps("smoke", 2, games=8, runs=folder / "runs", output=folder / "figure")
    return folder


@pytest.fixture
def chain(made):
    names = ("tables_only", "step2", "step3")
    return tuple(made / "runs" / f"ppi-smoke-{name}" for name in names)


def test_the_figure_has_ours_beside_the_papers(made, figures):
    assert (made / "figure.png").stat().st_size > 10_000
    rows = json.loads((made / "figure.json").read_text())
    second = rows[figures.TITLES[2]]
    assert second["phases"] == 2
    for label in figures.SIDES[2].values():
        assert len(second[label]["late_reward"]["seeds"]) == 2
        assert 0 <= second[label]["cooperation"]["median"] <= 1
        assert second[label]["paper"]["late_reward"] in (1.05, 0.2)
    # The smoke game has four rounds.
    assert {len(curve) for curve in rows["by tenth of the game"].values()} == {4}


def test_the_figure_is_drawn_again_without_training(made, figures, tmp_path):
    output = tmp_path / "again"
    figures.steps("smoke", games=8, train=False, runs=made / "runs", output=output)
    again = output.with_suffix(".json").read_text()
    assert again == (made / "figure.json").read_text()


def test_pools_without_one_kind_of_games_are_drawn(made, figures, tmp_path):
    """Step 1 is a pool of the figure of phases, and step 3 looks like the one without tables."""
    runs = tmp_path / "runs"
    for step, pool in (("tables_only", "tables_only"), ("step3", "no_tables")):
        shutil.copytree(made / "runs" / f"ppi-smoke-{step}", runs / f"ppi-smoke-{pool}")
    phases, output = importlib.import_module("reproductions.ppi").phases, tmp_path / "phases"
    phases("smoke", ("tables_only", "no_tables"), train=False, runs=runs, output=output)
    rows = json.loads(output.with_suffix(".json").read_text())
    tables = {"agent against tables", "tables against agent"}
    assert set(rows["tables_only"]) == {"run", "phases", *tables}
    assert set(rows["no_tables"]) == {"run", "phases", "agents against each other"}


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_agents_and_games_come_from_the_parent_seed_by_seed(chain):
    first, second, third = (load_predictive(open_run(path)) for path in chain)
    for trained, frozen in zip(
        jax.tree.leaves(first.params), jax.tree.leaves(second.opponent), strict=True
    ):
        np.testing.assert_array_equal(trained, frozen)
    played = 32 + 2 * 8
    for old, new in zip(jax.tree.leaves(second.memory), jax.tree.leaves(third.memory), strict=True):
        np.testing.assert_array_equal(old[:, :, :played], new[:, :, :played])
    np.testing.assert_array_equal(third.filled, played + 2 * 8)
    assert np.shape(lines(chain[1])[-1]["frozen/co_late_reward"]) == (2,)
    assert np.shape(lines(chain[2])[-1]["meta_late_reward"]) == (2,)


def test_one_seed_builds_on_the_first_of_several(chain, tmp_path):
    parent, config = open_run(chain[0]), open_run(chain[1]).load_config(PredictiveConfig)
    trained = load_predictive(parent)
    run = create(tmp_path / "run", parent.stage, config, parents={parent.stage: parent})
    Checkpoints(run).save(1, initial(_predictive_init(config), config.seed, 1, trained))
    found = load_predictive(run)
    for mine, theirs in zip(
        jax.tree.leaves(found.opponent), jax.tree.leaves(trained.params), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs[:1])


@pytest.mark.parametrize("step", [2, 3])
def test_resumed_runs_give_the_same_numbers(step, chain, tmp_path):
    """Of a copy: a run goes on only while its parent is the one that it was built on."""
    folder = shutil.copytree(chain[0].parent, tmp_path / "runs")
    run, parent = folder / chain[step - 1].name, folder / chain[step - 2].name
    whole = lines(run)
    (run / "checkpoints" / "2" / "manifest.json").unlink()
    assert train(run, "--resume", "--parent", str(parent)) == 0
    assert lines(run) == whole


@pytest.mark.parametrize(
    ("parent", "flags", "message"),
    [
        (None, STEP2, "parent is missing where agents.opponent is 'frozen'"),
        (None, STEP3, "and agents.start is 'parent'; allowed: a finished run"),
        (
            "step1",
            [],
            "where agents.opponent is 'learner' and agents.start is 'tables'; allowed: none",
        ),
        ("nowhere", STEP2, "nowhere does not exist"),
        ("other", STEP2, "is a run of stage 'social'; allowed: stage 'social_predictive'"),
        ("untrained", STEP2, "is at phase 0 of 2; allowed: a finished run"),
        ("step1", [*STEP2, "--seeds", "3"], "seeds is 3; allowed with parent"),
        ("step1", [*STEP2, "--game.episode-length", "5"], "game.episode_length is 5; allowed with"),
        ("step1", [*STEP2, "--hidden", "3"], "hidden is 3; allowed with parent"),
        ("step2", [*STEP3, "--agents.beta", "1"], "agents.beta is 1.0; allowed with parent"),
        ("step1", [*STEP2, "--agents.tabular-share", "1"], "tabular_share is 1.0 with opponent"),
    ],
)
def test_bad_parents_are_refused(parent, flags, message, chain, tmp_path, capsys):
    config = open_run(chain[0]).load_config(PredictiveConfig)
    create(tmp_path / "other", "social", config)
    create(tmp_path / "untrained", "social_predictive", config)
    if parent is not None:
        steps = {"step1": chain[0], "step2": chain[1]}
        flags = [*flags, "--parent", str(steps.get(parent, tmp_path / parent))]
    capsys.readouterr()
    assert train(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_damaged_parent_is_refused_before_anything_is_written(chain, tmp_path, capsys):
    manifest = chain[0] / "checkpoints" / "2" / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(b"{}")
    try:
        assert train(tmp_path / "run", "--parent", str(chain[0]), *STEP2) == 2
    finally:
        manifest.write_bytes(content)
    assert "is corrupt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_parent_is_refused_on_resuming(chain, capsys):
    assert train(chain[2], "--resume", "--parent", str(chain[0])) == 2
    assert f"allowed with --resume: {chain[1].resolve()}" in capsys.readouterr().err
