"""What the social figures' commands refuse, before they train anything."""

import importlib
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
