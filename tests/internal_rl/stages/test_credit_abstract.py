"""The figure of credit assignment over abstract steps, from a smoke run."""

import importlib
import json
from pathlib import Path

import pytest

from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def credit_abstract(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("reproductions.credit_abstract").credit_abstract


def test_variants_of_an_estimator_are_runs_of_their_own(credit_abstract, runs, tmp_path):
    name = "cocoa_reward/gaussian/8"

    def draw():
        credit_abstract(
            *(runs.meta.path, (name,), (0.1,), 2, 2),
            runs=tmp_path / "runs",
            output=tmp_path / "figure",
        )
        return json.loads((tmp_path / "figure.json").read_text())[f"{name} 0.1"]

    row = draw()
    run = RunDir(tmp_path / "runs" / "distractor-0.1" / "cocoa_reward-gaussian-8")
    settings = run.config.reinforce
    assert (settings.credit.hindsight, settings.credit.replay) == ("gaussian", 8)
    assert (settings.distractor_reward, settings.iterations, row["seeds"]) == (0.1, 2, 2)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    written = (run.path / "metrics.jsonl").read_bytes()
    assert draw() == row  # from the run, which is finished
    assert (run.path / "metrics.jsonl").read_bytes() == written


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cocoa", "credit.method is 'cocoa'"),
        ("cocoa_reward/gauss", "credit.hindsight is 'gauss'"),
        (
            "reinforce/gaussian",
            "credit.hindsight is 'gaussian'; allowed: density_ratio for reinforce",
        ),
        ("hca_return/gaussian", "allowed: density_ratio for hca_return"),
        ("hca/gaussian/8", "credit.replay is 8; allowed: 0 for hca"),
        ("cocoa_reward/gaussian/many", "METHOD/HINDSIGHT/REPLAY"),
    ],
)
def test_wrong_names(credit_abstract, runs, tmp_path, name, says):
    with pytest.raises(UserError, match=says):
        credit_abstract(runs.meta.path, (name,), runs=tmp_path / "runs", output=tmp_path / "figure")
    assert not list(tmp_path.iterdir())
