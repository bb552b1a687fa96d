"""COCOA's figures take a finished run only for what it is, and draw every value that the paper gives."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from configs import credit as presets
from internal_rl.errors import UserError
from internal_rl.runs import run_dir

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def reproductions(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: importlib.import_module(f"reproductions.{name}")


def test_a_run_of_other_settings_is_refused(reproductions, tmp_path, monkeypatch):
    draw, config = reproductions("cocoa_draw"), presets.get("cocoa-smoke", "reinforce")
    monkeypatch.setattr(draw, "enable_compilation_cache", lambda: None)
    run = run_dir.create(tmp_path / "run", "credit-train", config, num_seeds=2)
    run.set_status("done")
    # Where it was computed does not matter.
    elsewhere = replace(config, runtime=replace(config.runtime, cpu_devices=1))
    assert draw.finished(None, elsewhere, run.path, 2).path == run.path
    for changed, message in (
        (replace(config, train=replace(config.train, entropy=0.5)), "train.entropy of .* is 0.03"),
        (
            presets.get("cocoa-smoke", "advantage"),
            r"credit\.method of .* 'reinforce'; allowed here",
        ),
    ):
        with pytest.raises(UserError, match=message):
            draw.finished(None, changed, run.path, 2)
    with pytest.raises(UserError, match="has 2 seeds; allowed here: 3"):
        draw.finished(None, config, run.path, 3)


def test_figure_12_has_the_paper_for_every_method(reproductions):
    perturbed = presets.get("cocoa-perturbed-103").shadow
    marks = reproductions("cocoa_paper").FIG12
    assert set(marks) == set(perturbed.exact_methods)
    assert all(set(values) <= set(perturbed.perturbations) for values in marks.values())
