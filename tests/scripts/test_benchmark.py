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
