"""What the social figures' commands refuse, before they train anything."""

import csv
import importlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs import social as presets
from internal_rl.errors import UserError
from internal_rl.runs import run_dir
from internal_rl.social.build import validate_social
from internal_rl.social.config import SocialConfig
from internal_rl.social.pipeline import run_social

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("module", "command", "arguments", "message"),
    [
        (
            "coala_hawk",
            "hawk_pool",
            {"variants": ("preset", "ppo")},
            "variants holds 'ppo'; allowed: preset, uniform",
        ),
        (
            "coala_analysis",
            "fig12",
            {"points": 7},
            r"points is 7; allowed: divisors of iterations \(600\)",
        ),
        (
            "coala_analysis",
            "fig12",
            {"meta_episodes": 64},
            "meta_episodes is 64; allowed: multiples of 64",
        ),
        (
            "coala",
            "fig5",
            {"estimators": ("coala", "m_foss")},
            "estimator is 'm_foss'; allowed: coala, .*lola_dice, or file.py:NAME",
        ),
        (
            "coala",
            "fig6",
            {"estimators": ("coala", "myopic")},
            "estimator is 'myopic' with ppo; allowed with a critic: coala, batch_unaware, m_fos",
        ),
        ("ppi", "phases", {"scale": "smoke"}, "output is docs/results/ppi-phases with scale smoke"),
        ("ppi", "a2c", {"shares": (0.5, 2.0)}, r"shares holds 2.0; allowed: in \[0, 1\]"),
        ("ppi", "limits", {"games": 0}, "games is 0; allowed: at least 1"),
        ("ppi_steps", "steps", {"scale": "smoke"}, "output is docs/results/ppi-steps with scale"),
        ("ppi_steps", "steps", {"seeds": 0}, "seeds is 0; allowed: at least 1"),
    ],
)
def test_bad_flags(module, command, arguments, message, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.chdir(tmp_path)
    figures = importlib.import_module(f"reproductions.{module}")
    with pytest.raises(UserError, match=message):
        getattr(figures, command)(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "preset",
    [n for n in presets.names(SocialConfig) if not n.startswith(("ipd-rivals", "ppi-"))],
)
def test_lola_fits_every_preset(preset):
    config = presets.with_estimator(presets.get(preset, SocialConfig), "lola_dice")
    validate_social(config)
    # The imagined inner episodes are single ones.
    assert config.policy.kind == "tabular" or config.policy.memory == "inner_episode"


@pytest.mark.parametrize("scale", ["tabular", "hawk-laptop", "paper"])
def test_every_mixed_pool_fits_without_naive_learners(scale):
    """Checked here, as the figure trains the other pools first."""
    config = presets.meta_only(presets.get(f"ipd-mixed-{scale}", SocialConfig))
    validate_social(config)
    assert (config.pool.p_naive, config.pool.p_meta) == (0, 1)


def test_figure_5_shows_every_estimator_and_a_pool_without_naive_learners(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    figures = importlib.import_module("reproductions.coala")

    def trained(config, path, seeds):
        run = run_dir.create(path, "social", config, num_seeds=seeds)
        # A reward that says which run it is: its number.
        number = len(list(path.parent.iterdir()))
        metrics = ("naive/ego_reward", "meta/ego_reward")
        lines = ({"step": s, **{key: [number, number + 0.5] for key in metrics}} for s in (1, 2))
        run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    def evaluated(run, episodes):
        values = {"ego": [[1.0, 2.0], [1.0, 2.0]], "co": [[0.0, 0.5], [0.0, 0.5]]}
        return {
            "by_inner_episode": {"naive": values},
            "reward": {"naive": run.path.name, "meta": run.path.name},
            "cooperation_by_observation": {"meta": [[0.5] * 5] * 2},
        }

    monkeypatch.setattr(figures, "trained", trained)
    monkeypatch.setattr(figures, "evaluate_run", evaluated)
    output = tmp_path / "figure"
    figures.fig5(estimators=("coala", "lola_dice"), seeds=2, runs=tmp_path / "runs", output=output)
    rows = json.loads(output.with_suffix(".json").read_text())
    alone = "ipd-mixed-tabular-coala-without-naive"
    assert rows["pool coala without naive"]["meta"] == alone
    assert run_dir.RunDir(tmp_path / "runs" / alone).load_config(SocialConfig).pool.p_naive == 0
    assert rows["shaping lola_dice"] == "ipd-shaping-tabular-lola_dice"
    assert "cooperation by observation, lola_dice" in rows
    drawn = list(csv.DictReader(output.with_suffix(".csv").read_text().splitlines()))
    titles = {"A": "A: meta agent against naive learners", "C": "C: metas against each other"}
    found = {
        panel: {row["line"]: float(row["y"]) for row in drawn if row["panel"].startswith(title)}
        for panel, title in titles.items()
    }
    assert found["A"] == {"COALA-PG": 1.25, "LOLA-DiCE": 2.25}
    assert found["C"] == {
        "COALA-PG": 3.25,
        "LOLA-DiCE": 4.25,
        "COALA-PG, no naive learners": 5.25,
    }
    naive = [row["y"] for row in drawn if row["line"] == "naive, COALA-PG"]
    assert naive == ["0", "0.5"]


def test_every_variant_of_the_hawk_pool_is_another_one(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    figures = importlib.import_module("reproductions.coala_hawk")
    configs = [figures._hawk_variant(**changes) for _, changes in figures.HAWK_VARIANTS.values()]
    assert configs[0] == presets.get("ipd-mixed-hawk-laptop", SocialConfig)
    assert all(a != b for a, b in itertools.combinations(configs, 2))


def test_more_cooperative_starts_pay_more(monkeypatch, tmp_path):
    """Untrained metas hardly shape, so what a naive learner starts with is what they get."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    figures = importlib.import_module("reproductions.coala_hawk")
    config = replace(presets.get("social-smoke", SocialConfig), iterations=2)
    run = run_social(config, tmp_path / "run", seeds=2, progress=False)
    rewards = figures._by_start(run, episodes=16)
    assert rewards.shape == (2, len(figures.STARTS))
    assert (np.diff(rewards[:, ::2]) > 0).all()
    # The ego plays C half of the time: 2 P(C) - 1/2 a step, before the learner learns.
    half = figures.STARTS.index(0.5)
    assert np.abs(rewards[:, half] - 0.5).max() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        (
            "phases",
            {"pools": ("mixed",), "seeds": 2},
            {"mixed"},
        ),
        ("a2c", {"seeds": 1}, {"mixed", "no tables"}),
        ("limits", {"games": 4, "fits": 1}, {"exact by beta", "fitted", "exact log-loss"}),
    ],
)
def test_predictive_figures(command, arguments, expected, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    ppi = importlib.import_module("reproductions.ppi")
    # Leave the user's compilation cache alone.
    shared = importlib.import_module("reproductions.social_figures")
    monkeypatch.setattr(shared, "enable_compilation_cache", lambda: None)
    if command != "limits":
        arguments = arguments | {"runs": tmp_path / "runs"}
    output = tmp_path / "figure"
    getattr(ppi, command)(scale="smoke", output=output, **arguments)
    rows = json.loads(output.with_suffix(".json").read_text())
    assert expected <= set(rows)
    assert output.with_suffix(".png").stat().st_size > 10_000
    if command == "phases":
        each_other = rows["mixed"]["agents against each other"]["reward"]
        assert len(each_other["seeds"]) == 2
