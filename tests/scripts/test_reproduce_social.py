"""What the social figures' commands refuse, before they train anything."""

import importlib
import json
from pathlib import Path

import pytest

from internal_rl.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("memory", {"members": ("step-0",)}, "members holds 'step-0'; allowed: MEMORY-SEED-UPD"),
        ("memory", {"members": ("all-0-25",)}, "memory one of meta_episode, inner_episode, step"),
        ("fig12", {"points": 7}, r"points is 7; allowed: divisors of iterations \(600\)"),
        ("fig12", {"meta_episodes": 64}, "meta_episodes is 64; allowed: multiples of 64"),
    ],
)
def test_bad_flags(command, arguments, message, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.chdir(tmp_path)
    figures = importlib.import_module("reproductions.coala_analysis")
    with pytest.raises(UserError, match=message):
        getattr(figures, command)(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("phases", {"seeds": 2, "ablation_seeds": 1}, {"mixed", "identity", "no_tables"}),
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
        assert "agents against each other" not in rows["tables_only"]
        assert set(rows["no_tables"]) == {"run", "phases", "agents against each other"}
