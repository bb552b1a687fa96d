"""The environment benchmark measures what it says, on a tiny budget."""

import jax
import jax.numpy as jnp
import pytest

from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.tasks import TABLE_A2
from scripts.benchmarks import env as benchmark


def test_rates_are_measured_and_compared(capsys):
    pinpad = benchmark._pinpad("ours", GridPinpad(4, 4, 1), TABLE_A2, 24)
    programs = {name: benchmark._program(pinpad, 4, 3, observe=True) for name in ("ours", "peer")}
    rates = benchmark._time(programs, dict.fromkeys(programs, pinpad), 12, 4, 3)
    assert all(len(values) == 3 and min(values) > 0 for values in rates.values())
    rows = benchmark._report("title", {"ours": [1.0, 2.0, 4.0], "peer": [1.0] * 3}, "peer")
    assert (rows[0]["median"], rows[0]["min"], rows[0]["max"], rows[0]["ratio"]) == (2, 1, 4, 2)
    assert "2.00 (1.00–4.00)" in capsys.readouterr().out


def test_every_observation_is_summed():
    """The reduction sees all observations: 10 ones each, for 3 steps of 4 environments."""
    pinpad = benchmark._pinpad("ours", GridPinpad(4, 4, 0), TABLE_A2, 24)
    observed, plain = (benchmark._program(pinpad, 4, 3, observe=flag) for flag in (True, False))
    keys = jax.random.split(jax.random.key(0), 4)
    carry = (jax.random.key(1), jax.jit(pinpad.reset)(keys))
    difference = observed(carry)[2] - plain(carry)[2]
    assert difference == jnp.float32(3 * 4 * 10)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match=r"repeats=\[0\]: allowed are positive numbers"):
        benchmark.main(repeats=0)
