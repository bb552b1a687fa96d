"""Stages, analyses, play and models work with any world: none of them knows one of ours by name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORLDS = [path.name for path in (ROOT / "envs").iterdir() if (path / "__init__.py").exists()]


def imports(file):
    """Every module that a file imports, anywhere in it, as a dotted name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def worlds_of(file):
    return {
        name
        for name in imports(file)
        for world in WORLDS
        if f"{name}.".startswith(f"envs.{world}.")
    }


@pytest.mark.parametrize("room", ["play", "stages", "analysis", "models"])
def test_no_world_is_known_by_name(room):
    files = sorted((ROOT / "internal_rl" / room).rglob("*.py"))
    assert len(files) > 3
    assert {str(file): found for file in files if (found := worlds_of(file))} == {}


def test_the_search_finds_what_is_there():
    assert "pinpad" in WORLDS
    assert "envs.pinpad.world.PinpadWorld" in worlds_of(ROOT / "internal_rl" / "build.py")
