"""The files of docs/own-{world,data,model}.md, in an empty folder, through all four stages by the command line."""

import json
import re
from pathlib import Path

import jax
import pytest

from internal_rl.commands.main import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / f"own-{name}.md" for name in ("world", "data", "model")]
FILE = re.compile(r'^```python title="(\w+\.py)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
SHORT = ("--runtime.log-every", "2", "--runtime.checkpoint-every", "2", "--no-progress")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder with the files of the pages and recorded episodes."""
    path = tmp_path_factory.mktemp("own")
    for page in PAGES:
        for name, body in FILE.findall(page.read_text()):
            (path / name).write_text(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for policy, output in (("expert", "noisy"), ("clean", "clean")):
            record = run("data", "record", "--preset", "training.py:CONFIG", "--output", output)
            record("--policy", f"training.py:{policy}", "--successes-only", "--episodes", 64)
        yield path


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def run(*words):
    def more(*others):
        assert main([str(word) for word in (*words, *others)]) == 0

    return more


def test_every_file_is_one_that_a_reader_copies():
    files = [item for page in PAGES for item in FILE.findall(page.read_text())]
    assert [name for name, _ in files] == ["beacons.py", "training.py", "recurrent.py"]
    assert all(body.count("\n") < 80 for _, body in files)


@pytest.mark.parametrize("config", ["CONFIG", "RECURRENT"])
def test_all_four_stages(config, folder):
    runs = folder / config
    pretrain = run("pretrain", "--preset", f"training.py:{config}", "--run", runs / "base", *SHORT)
    pretrain("--pretrain.steps", 2, "--pretrain.batch-size", 2)
    discover = run("discover", "--base", runs / "base", "--run", runs / "meta", *SHORT)
    discover(
        *("--discover.steps", 2, "--discover.batch-size", 2, "--discover.kl-hold-steps", 0),
        *("--discover.kl-warmup-steps", 0, "--discover.tail-steps", 0),
    )
    small = ("--reinforce.iterations", 2, "--reinforce.batch-size", 4, *SHORT)
    run("reinforce", "--parent", runs / "meta", "--run", runs / "internal")(*small)
    raw = ("--reinforce.method", "raw_action")
    run("reinforce", "--parent", runs / "base", "--run", runs / "raw")(*raw, *small)
    for name, part in (
        ("meta", "replayed_codes"),
        ("internal", "internal_rl"),
        ("raw", "raw_action"),
    ):
        run("evaluate", "--run", runs / name, "--evaluate.episodes", 4)("--seeds", 1)
        found = json.loads((runs / name / "evaluation.json").read_text())
        assert 0 <= found[part]["success_iqm"] <= 1


def test_the_world_keeps_the_contract(folder):
    from agents.references import load
    from envs.check import check_world

    config = load("training.py:CONFIG")
    for tasks in (config.env.pretrain_tasks, config.env.heldout_tasks):
        assert check_world(load("beacons.py:Beacons")(tasks), episodes=4) == []


def test_the_model_keeps_the_contract(folder):
    from agents.references import load
    from internal_rl.models.check import check_split_model

    world = load("beacons.py:Beacons")(("012",))
    network = load("recurrent.py:Recurrent")(world.obs_spec, world.action_spec, 37)
    params = jax.jit(network.init)(jax.random.key(0))
    assert check_split_model(network, params, world.obs_spec, world.action_spec, layers=(1,)) == []
