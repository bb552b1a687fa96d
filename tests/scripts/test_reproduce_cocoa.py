"""COCOA's figures take a finished run only for what it is, and draw every value that the paper gives."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    perturbed = presets.get("cocoa-perturbed-23").shadow
    marks = reproductions("cocoa_paper").FIG12
    assert set(marks) == set(perturbed.exact_methods)
    assert all(set(values) <= set(perturbed.perturbations) for values in marks.values())


@pytest.mark.parametrize("methods", [(), ("cocoa_reward", "reinforce")])
def test_snr_is_of_the_methods_asked_for(reproductions, tmp_path, monkeypatch, methods):
    cocoa, asked = reproductions("cocoa"), []

    def columns(run, name):
        assert name == "measured_treasure" or name.partition("/")[2] in run.shadow.methods
        return np.array([[0.1, 0.2], [0.9, 0.9]])

    monkeypatch.setattr(cocoa, "finished", lambda _, config, *__: asked.append(config) or config)
    monkeypatch.setattr(cocoa, "column", columns)
    cocoa.fig1_snr((23, 103), methods, seeds=2, every=50, output=tmp_path / "snr")
    drawn = methods or presets.get("cocoa-shadow-23").shadow.methods
    assert [config.shadow.methods for config in asked] == [drawn, drawn]
    rows = json.loads((tmp_path / "snr.json").read_text())
    assert set(rows) == {f"{method} {length}" for method in drawn for length in (23, 103)}
    assert rows["reinforce 103"]["mean"] == pytest.approx((0.1 + 0.2 + 2 * 0.9) / 4)


@pytest.fixture
def curves(reproductions):
    steps = np.array([100.0, 200.0, 300.0])
    git = {"commit": "abc", "dirty": False}
    make = reproductions("cocoa_curves").Curve
    rng = np.random.default_rng(0)
    return {
        "exact": {"advantage": make(steps, rng.random((3, 2)), git)},
        "learned": {
            "advantage": make(steps, rng.random((3, 2)), git),
            "reinforce": make(steps[:2], rng.random((2, 2)), {"commit": None, "dirty": None}),
        },
    }


def test_published_curves_are_read_as_they_were_written(reproductions, tmp_path, curves):
    module, path = reproductions("cocoa_curves"), tmp_path / "curves.csv"
    module.write_curves(path, "cocoa-smoke", "eval_treasure", curves)
    found = module.read_curves(path, "cocoa-smoke", "eval_treasure", seeds=2)
    assert set(found) == {(m, name) for m, methods in curves.items() for name in methods}
    for (model, method), curve in found.items():
        written = curves[model][method]
        np.testing.assert_array_equal(curve.steps, written.steps)
        np.testing.assert_array_equal(curve.values, written.values)
        assert curve.git == written.git


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "cocoa-length-23"}, "has the line 'cocoa-smoke,.*of preset cocoa-length-23"),
        ({"metric": "eval_correct"}, "has the line .* and metric eval_correct"),
        ({"seeds": 3}, "allowed: .* and 3 of seeds"),
        ({"edit": ("seed_0", "seed")}, None),
        ({"edit": ("model,", "")}, "has columns preset, method"),
        ({"edit": (",100,", ",many,")}, "is damaged: .*many"),
        ({"edit": (",100,", ",")}, "has the line"),
        ({"edit": None}, "there is no such file"),
    ],
)
def test_published_curves_of_something_else_are_refused(
    reproductions, tmp_path, curves, change, message
):
    module, path = reproductions("cocoa_curves"), tmp_path / "curves.csv"
    module.write_curves(path, "cocoa-smoke", "eval_treasure", curves)
    asked = {"preset": "cocoa-smoke", "metric": "eval_treasure", "seeds": 2} | change
    edit = asked.pop("edit", ("", ""))
    if edit is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(*edit))
    if message is None:  # what the columns of seeds are called says nothing
        module.read_curves(path, **asked)
        return
    with pytest.raises(UserError, match=message):
        module.read_curves(path, **asked)


def test_a_figure_draws_own_runs_published_curves_and_trains_the_rest(
    reproductions, tmp_path, monkeypatch, curves
):
    draw, module = reproductions("cocoa_draw"), reproductions("cocoa_curves")
    module.write_curves(tmp_path / "published.csv", "cocoa-smoke", "eval_treasure", curves)
    own = run_dir.create(
        tmp_path / "runs/smoke/advantage-learned",
        "credit-train",
        presets.get("cocoa-smoke", "advantage"),
        num_seeds=2,
    )
    own.metrics_file.write_text('{"step": 100, "eval_treasure": [0.25, 0.75]}\n')
    asked_for = []

    def trained(preset, method, model, seeds, runs):
        asked_for.append((method, model))
        return own

    monkeypatch.setattr(draw, "trained", trained)
    plot = draw.CurvePlot("cocoa-smoke", "eval_treasure", "fraction", (100,), {})
    models = {"exact": ("advantage",), "learned": ("advantage", "reinforce", "q_critic")}
    draw.draw_curves(
        plot, models, 2, tmp_path / "runs", tmp_path / "published.csv", tmp_path / "figure"
    )
    # Its own run comes before the published curve; what has neither is trained.
    assert asked_for == [("advantage", "learned"), ("q_critic", "learned")]
    drawn = json.loads((tmp_path / "figure.json").read_text())
    assert drawn["advantage learned"]["100"]["mean"] == 0.5
    assert drawn["advantage exact"]["100"]["mean"] == curves["exact"]["advantage"].values[0].mean()
    assert drawn["reinforce learned"]["run"] == {"commit": None, "dirty": None}
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    kept = module.read_curves(tmp_path / "figure.csv", "cocoa-smoke", "eval_treasure", 2)
    assert set(kept) == {(model, name) for model, names in models.items() for name in names}
