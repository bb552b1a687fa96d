import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", ["env", "stages"])
def test_help(command):
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert "--" in done.stdout
