"""A command that an error ends past its first checkpoint and that is resumed: what every stage has to survive.

The loop is the same for all stages; `runs/test_loop.py` kills it for good, in a process of its own.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from internal_rl.commands import main as cli
from internal_rl.pipeline import load_params
from internal_rl.runs.cache import count_compilations
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.logger import Logger
from internal_rl.runs.run_dir import RunDir
from tests.internal_rl.small import assert_trees_equal


class _Died(Exception):
    pass


def assert_survives_an_error(command: Sequence[str], whole: RunDir, path: Path) -> None:
    """End `command` (stage and flags of the finished smoke run `whole`) in `path` after step 6 and resume it.

    Metrics and weights must be those of `whole`, which was not interrupted, bit for bit.
    """
    command = [*command, "--run", str(path), "--no-progress"]
    write = Logger.metrics

    def failing(self: Logger, step: int, metrics: Any) -> None:
        write(self, step, metrics)
        if (
            step == 6
        ):  # past the checkpoint of step 4: this line has to be dropped and written again
            raise _Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Logger, "metrics", failing)
        with pytest.raises(_Died):
            cli.main(command)
    metrics = path / "metrics.jsonl"
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [2, 4, 6]
    assert Checkpoints(path / "checkpoints").steps() == [4]
    with count_compilations() as counts:
        assert cli.main([*command, "--resume"]) == 0
    assert counts.cache_misses == 0  # the second start compiles nothing
    assert metrics.read_bytes() == whole.metrics_file.read_bytes()
    assert RunDir(path).info["status"] == "done"
    assert_trees_equal(load_params(RunDir(path), None), load_params(whole, None))
