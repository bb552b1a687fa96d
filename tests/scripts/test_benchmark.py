"""The scripts as a user starts them: a process of its own, in the repository's root."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help():
    """Of the other sub-commands, see test_docs."""
    command = [sys.executable, "scripts/benchmark.py", "stages", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert "--" in done.stdout


def test_what_the_user_got_wrong_is_one_line(tmp_path):
    words = ["coala-hawk-pool", "--variants", "ppo", "--output", str(tmp_path / "figure")]
    command = [sys.executable, "scripts/reproduce.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("reproduce.py: error: variants holds 'ppo'")
    assert "Traceback" not in done.stderr
