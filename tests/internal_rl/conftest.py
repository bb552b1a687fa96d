"""One smoke run of every stage per session, shared by all tests that need trained networks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Our packages are imported inside the fixtures: pytest may load this file before `--typecheck` has
# put its import hook in place, and what is imported before that is not checked.
if TYPE_CHECKING:
    from internal_rl.config import Config
    from internal_rl.runs.run_dir import RunDir


@dataclass(frozen=True)
class Runs:
    """Finished smoke runs, one per stage; tests must not change them."""

    config: Config
    base: RunDir
    meta: RunDir
    internal: RunDir
    base_contents: dict[str, str]
    """Files of the pretrain run when it was done, with their SHA-256."""
    programs: dict[str, list[int]]
    """Programs compiled when each chunk of a stage was logged."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    """pretrain → discover → reinforce with the smoke preset."""
    from internal_rl import pipeline
    from internal_rl.runs.cache import count_compilations
    from internal_rl.runs.logger import Logger
    from tests.internal_rl.small import SMOKE

    folder = tmp_path_factory.mktemp("smoke")
    programs: dict[str, list[int]] = {}

    def counted(stage, run, *arguments):
        with count_compilations() as counts, pytest.MonkeyPatch.context() as patch:
            log = Logger.metrics

            def metrics(logger, step, numbers):
                log(logger, step, numbers)
                programs.setdefault(stage, []).append(counts.programs)

            patch.setattr(Logger, "metrics", metrics)
            return run(SMOKE, folder / stage, *arguments, progress=False)

    base = counted("base", pipeline.run_pretrain)
    files = contents(base.path)
    meta = counted("meta", pipeline.run_discover, base)
    internal = counted("internal", pipeline.run_reinforce, meta)
    return Runs(SMOKE, base, meta, internal, files, programs)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command that has to fail with one line on stderr, before compiling or writing."""
    from internal_rl.commands import main as cli
    from internal_rl.runs import loop
    from internal_rl.runs.cache import count_compilations

    def no_training(*_, **__):
        raise AssertionError("the mistake was not noticed before training")

    def check(*argv, says=()):
        monkeypatch.setattr(loop, "run", no_training)
        monkeypatch.chdir(tmp_path)
        before = contents(tmp_path)
        with count_compilations() as compiled:
            code = cli.main([str(word) for word in argv])
        assert compiled.programs <= 4  # moving a task table there and back; a stage takes dozens
        captured = capsys.readouterr()
        assert code == 2, captured
        assert captured.out == ""
        assert captured.err.startswith("internal-rl: error: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        for part in (says,) if isinstance(says, str) else says:
            assert part in captured.err
        assert contents(tmp_path) == before

    return check
