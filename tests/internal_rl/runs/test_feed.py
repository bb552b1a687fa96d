"""Batches that the host feeds: every step gets its own, also with seeds on two devices and after an interruption."""

import os
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.config import Config
from internal_rl.runs import run_dir
from internal_rl.runs.logger import read_metrics
from tests.internal_rl.runs import toy

STEPS = toy.RUNTIME.log_every


def batch(step, seed=0):
    return np.float32(100 * seed + step)


def update(state, target, fed):
    """Sum what is fed, times the number of the step, so that the order counts."""
    weight = state.step.astype(jnp.float32) + 1.0
    new = state.replace(step=state.step + 1, w=state.w + weight * fed["x"] + target)
    return new, {"loss": fed["x"]}


def train(folder, seeds=1, **options):
    run = folder if isinstance(folder, run_dir.RunDir) else run_dir.create(folder, "toy", Config())
    asked = []

    def feed(step):
        asked.append(step)
        rows = [[batch(step + i, seed) for seed in range(seeds)] for i in range(STEPS)]
        return {"x": np.asarray(rows) if seeds > 1 else np.asarray(rows)[:, 0]}

    options |= {"seeds_axis": seeds > 1, "feed": feed}
    state = jax.vmap(toy.init)(jnp.arange(seeds)) if seeds > 1 else toy.init(0)
    state = state.replace(w=jnp.zeros_like(state.w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "update", update)
        return run, toy.train(run, state, **options), asked


def expected(seed=0):
    return sum((n + 1) * batch(n, seed) + float(toy.TARGET) for n in range(toy.STEPS))


def test_every_step_gets_its_batch(tmp_path):
    run, final, asked = train(tmp_path / "run")
    np.testing.assert_allclose(final.w, expected())
    assert asked == list(range(0, toy.STEPS, STEPS))  # once each, none after the end
    means = np.arange(toy.STEPS).reshape(-1, STEPS).mean(1)
    np.testing.assert_allclose(read_metrics(run)["loss"], means)


@pytest.mark.parametrize("devices", [1, 2])
def test_every_seed_gets_its_own(tmp_path, devices):
    runtime = replace(toy.RUNTIME, cpu_devices=devices)
    run, final, _ = train(tmp_path / "run", seeds=4, runtime=runtime)
    assert len(final.w.sharding.device_set) == devices
    for seed in range(4):
        np.testing.assert_allclose(final.w[seed], expected(seed))
    means = np.arange(toy.STEPS).reshape(-1, STEPS).mean(1)[:, None] + 100 * np.arange(4)
    np.testing.assert_allclose(read_metrics(run)["loss"], means)


def test_a_resumed_run_is_fed_from_where_it_stopped(tmp_path):
    whole, final, _ = train(tmp_path / "whole")

    def interrupt(state):
        if int(state.step) == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt, match="saved at step 15"):
        train(tmp_path / "run", extra_metrics=interrupt)
    run, resumed, asked = train(run_dir.open_run(tmp_path / "run"), resume=True)
    assert asked[0] == 15
    np.testing.assert_array_equal(resumed.w, final.w)
    assert run.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
