"""What needs no JAX does not wait for it: JAX takes seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from internal_rl.commands.main import COMMANDS

ROOT = Path(__file__).parents[3]
HELP = [["--help"], *([name, "--help"] for name in COMMANDS)]


def imported(code):
    """Modules that a fresh process holds after `code`."""
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


def test_the_package_alone():
    _, modules = imported("import internal_rl")
    assert "internal_rl" in modules
    assert "jax" not in modules


def test_help():
    words = f"from internal_rl.commands.main import main\nassert not any(map(main, {HELP}))"
    shown, modules = imported(words)
    assert shown.count("usage: internal-rl") == len(HELP)
    assert "internal_rl.commands.pretrain" in modules
    assert "jax" not in modules


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"]])
def test_the_installed_program(words):
    code = (
        "import runpy\n"
        f"sys.argv[1:] = {words}\n"
        "try:\n    runpy.run_module('internal_rl.commands.main', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0"
    )
    shown, modules = imported(code)
    assert shown.startswith("usage: internal-rl")
    assert "jax" not in modules
