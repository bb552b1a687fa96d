"""The benchmark of learning-aware agents, on a tiny budget."""

import json
import math

import pytest

from envs.social.matrix import IteratedMatrixGame
from internal_rl.social.config import PolicyConfig
from internal_rl.social.hawk import hawk_policy
from scripts.benchmarks import social as benchmark


def test_growth_is_an_exponent():
    rows = [{"length": 10, "mib": 2.0}, {"length": 40, "mib": 32.0}]
    assert benchmark._growth(rows, "length", lambda row: row["mib"]) == pytest.approx(2)
    assert math.isnan(benchmark._growth(rows, "length", lambda row: 0.0))


def test_memory_is_that_of_the_compiled_program(tmp_path, capsys):
    output = tmp_path / "memory.json"
    benchmark.main(compile_only=("social-smoke",), output=output)
    (row,) = json.loads(output.read_text())
    assert row["preset"] == "social-smoke"
    # At least the probabilities of K B M T steps of both agents.
    assert row["update_mib"] * 2**20 > 4 * 4 * 3 * 4 * 2 * 4
    assert "social-smoke" in capsys.readouterr().out


def test_carried_bytes_are_those_of_one_chain():
    policy = hawk_policy(PolicyConfig(kind="hawk"), IteratedMatrixGame())
    # Recurrence, convolution buffer and a flag; the step counter is one for all chains.
    expected = 4 * 32 + 4 * 3 * 32 + 1
    for batch in (1, 16):
        more = benchmark._carried_bytes(policy, batch + 1) - benchmark._carried_bytes(policy, batch)
        assert more == expected


def test_sizes_are_positive():
    with pytest.raises(ValueError, match="allowed: positive numbers"):
        benchmark.main(batches=())
