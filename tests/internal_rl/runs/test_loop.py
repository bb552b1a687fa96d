import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.config import Config, RuntimeConfig
from internal_rl.errors import UserError
from internal_rl.runs import loop, run_dir
from internal_rl.runs.cache import count_compilations
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.logger import read_lines, read_metrics
from internal_rl.runs.seeds import seed_mesh
from tests.internal_rl.runs import toy

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path):
    return run_dir.create(tmp_path / "run", "toy", Config())


def by_hand(steps, seed=0):
    """States and losses of the toy stage, one jitted step after the other."""
    state, losses = toy.init(seed), []
    step = jax.jit(toy.update)
    for _ in range(steps):
        state, metrics = step(state, toy.TARGET)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses)


def test_same_numbers_as_a_plain_loop(run):
    final = toy.train(run)
    expected, losses = by_hand(toy.STEPS)
    np.testing.assert_allclose(final.w, expected.w, rtol=1e-6)
    metrics = read_metrics(run)
    np.testing.assert_array_equal(metrics["step"], np.arange(5, 41, 5))
    np.testing.assert_allclose(metrics["loss"], losses.reshape(-1, 5).mean(1), rtol=1e-5)
    np.testing.assert_array_equal(metrics["count"], 15)  # integers are summed
    np.testing.assert_allclose(metrics["big"], (losses > 1).reshape(-1, 5).mean(1), rtol=1e-6)
    assert run.info["status"] == "done"
    assert Checkpoints(run).steps() == [30, 40]


def test_what_a_chunk_returns_does_not_grow_with_its_length():
    """Metrics are reduced on the device: no array with an entry per update."""
    mesh = seed_mesh(toy.RUNTIME, 1)
    shapes = []
    for length in (5, 500):
        arguments = (toy.update, toy.init(0), None, (toy.TARGET,), length, False, mesh)
        chunk = loop._compile_chunk(*arguments)
        state, metrics = chunk(toy.init(0), None, toy.TARGET)
        shapes.append(jax.tree.map(jnp.shape, (state, metrics)))
        memory = chunk.memory_analysis()
        shapes[-1] = (shapes[-1], memory.output_size_in_bytes)
    assert shapes[0] == shapes[1]
    assert set(shapes[0][0][1]) == {"loss", "count", "big"}


def test_metrics_go_to_wandb_where_a_project_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    runtime = dataclasses.replace(toy.RUNTIME, wandb="project")
    with pytest.raises(UserError, match="wandb is not installed"):
        toy.train(run, runtime=runtime)


def test_seeds_are_independent_runs(run):
    final = toy.train(run, jax.vmap(toy.init)(jnp.arange(3)), seeds_axis=True)
    metrics = read_metrics(run)
    assert metrics["loss"].shape == (8, 3)
    for seed in range(3):
        expected, losses = by_hand(toy.STEPS, seed)
        np.testing.assert_allclose(final.w[seed], expected.w, rtol=1e-5)
        means = losses.reshape(-1, 5).mean(1)
        np.testing.assert_allclose(metrics["loss"][:, seed], means, rtol=1e-5)


def test_update_without_frozen_argument(run):
    final = loop.run(
        "toy",
        toy.init(0),
        lambda state: toy.update(state, toy.TARGET),
        total_steps=5,
        runtime=toy.RUNTIME,
        run=run,
        headline="loss",
        tensorboard=False,
        progress=False,
    )
    assert int(final.step) == 5


def test_callers_arrays_survive_donation(run):
    state = toy.init(0)
    # Two leaves that share one buffer cannot both be donated; the copy keeps them apart.
    shared = state.replace(w=state.w, key=state.key)
    toy.train(run, shared, total_steps=10)
    assert int(state.step) == 0
    assert np.isfinite(np.asarray(state.w)).all()


def test_nothing_compiles_after_the_first_chunk(run):
    seen = []
    with count_compilations() as counts:
        toy.train(run, extra_metrics=lambda _: seen.append(counts.programs) or {})
        jax.block_until_ready(jnp.float32(1.0))
    assert seen[0] > 0
    assert len(seen) == 8
    assert seen[-1] == seen[0]


def test_weakly_typed_state_is_one_program(run):
    """A Python number as a leaf is weakly typed at first; scan and the compiled chunk would refuse
    it."""
    weak = toy.init(0).replace(w=jnp.asarray(1.0) * jnp.asarray(2.0))
    assert weak.w.weak_type
    final = toy.train(run, weak, total_steps=10)
    assert not final.w.weak_type


def test_interrupt_saves_and_resume_gives_the_same_lines(tmp_path, run):
    reference = run_dir.create(tmp_path / "reference", "toy", Config())
    whole = toy.train(reference)

    def interrupt(state):
        if int(state.step) == 15:  # between two checkpoints
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"saved at step 15 of 40.*--resume"):
        toy.train(run, extra_metrics=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert run.info["status"] == "running"
    assert Checkpoints(run).latest_step() == 15
    resumed = toy.train(run, resume=True)
    np.testing.assert_array_equal(resumed.w, whole.w)
    assert run.metrics_file.read_bytes() == reference.metrics_file.read_bytes()
    assert [x["step"] for x in read_lines(run.timing_file) if "seconds" in x] == list(
        range(5, 41, 5)
    )


def test_kill_and_resume_equals_an_uninterrupted_run(tmp_path):
    """kill -9 between two checkpoints, then again while a checkpoint is being written; the cache
    spares compiling."""
    environment = os.environ | {"INTERNAL_RL_CACHE": str(tmp_path / "cache")}

    def start(name, kill_at="none", step=0):
        command = [sys.executable, "-m", "tests.internal_rl.runs.toy"]
        command += [str(tmp_path / name), kill_at, str(step)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == (0 if kill_at == "none" else -signal.SIGKILL), done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first = start("reference")
    assert first["cache_misses"] > 0
    second = start("killed", "chunk", 15)
    assert second["cache_misses"] == 0
    assert second["cache_hits"] == second["programs"] > 0
    killed = run_dir.open_run(tmp_path / "killed")
    assert Checkpoints(killed).latest_step() == 10
    start("killed", "manifest", 30)
    assert (killed.checkpoints_dir / "30").is_dir()  # half-written, so it does not count
    assert Checkpoints(killed).latest_step() == 20
    assert [x["step"] for x in read_lines(killed.metrics_file)][-1] == 30
    with killed.metrics_file.open("a") as file:
        file.write('{"step": 35, "lo')  # a line cut off by the kill
    third = start("killed")
    assert third["cache_misses"] == 0
    reference = run_dir.open_run(tmp_path / "reference")
    assert killed.metrics_file.read_bytes() == reference.metrics_file.read_bytes()
    template = jax.eval_shape(lambda: toy.init(0))
    for run in (killed, reference):
        assert Checkpoints(run).steps() == [30, 40]
    _, one = Checkpoints(killed).restore_latest(template)
    _, other = Checkpoints(reference).restore_latest(template)
    np.testing.assert_array_equal(one.w, other.w)


def test_resuming_a_finished_run_changes_nothing(run):
    final = toy.train(run)
    before = run.metrics_file.read_bytes()
    again = toy.train(run, resume=True)
    np.testing.assert_array_equal(final.w, again.w)
    assert run.metrics_file.read_bytes() == before


def test_resume_without_checkpoint_starts_afresh(run):
    run.metrics_file.write_text('{"step": 5, "loss": 1.0}\n')
    toy.train(run, resume=True, total_steps=10)
    assert [x["step"] for x in read_lines(run.metrics_file)] == [5, 10]


def test_not_a_number_aborts_without_a_checkpoint(run):
    def update(state, target):
        state, metrics = toy.update(state, target)
        return state, metrics | {"loss": jnp.where(state.step > 22, jnp.nan, metrics["loss"])}

    with pytest.raises(UserError, match="toy: loss is not finite at step 25"):
        loop.run(
            "toy",
            toy.init(0),
            update,
            total_steps=60,
            runtime=toy.RUNTIME,
            run=run,
            headline="loss",
            frozen=toy.TARGET,
            tensorboard=False,
            progress=False,
        )
    assert Checkpoints(run).latest_step() == 20
    assert read_lines(run.metrics_file)[-1]["loss"] is None  # strict JSON has no NaN
    assert run.info["status"] == "running"


@pytest.mark.parametrize(
    ("total", "log", "save", "message"),
    [
        (61, 5, 10, "toy steps is 61; allowed: a positive multiple of runtime.log_every"),
        (0, 5, 10, "toy steps is 0"),
        (60, 5, 12, "runtime.checkpoint_every is 12; allowed: a positive multiple"),
        (60, 0, 10, "runtime.log_every is 0; allowed: at least 1"),
    ],
)
def test_step_counts_that_do_not_fit(run, total, log, save, message):
    with pytest.raises(UserError, match=message):
        toy.train(run, total_steps=total, runtime=RuntimeConfig(log, save, 2))
    assert Checkpoints(run).steps() == []


def test_programming_errors_name_the_metric(run):
    with pytest.raises(ValueError, match="no metric 'reward'"):
        toy.train(run, headline="reward")
    with pytest.raises(ValueError, match="metric w has shape"):
        loop.run(
            "toy",
            toy.init(0),
            lambda state: (state, {"w": state.w}),
            total_steps=5,
            runtime=toy.RUNTIME,
            run=run,
            headline="w",
            tensorboard=False,
        )


def test_timing_is_apart_and_adds_up_over_resumptions(run):
    toy.train(run, total_steps=20)
    first = loop.timing_totals(run)
    assert first["wall_seconds"] > 0
    assert first["compile_seconds"] > 0
    toy.train(run, total_steps=40, resume=True)
    second = loop.timing_totals(run)
    assert second["wall_seconds"] > first["wall_seconds"]
    walls = [x["wall_seconds"] for x in read_lines(run.timing_file) if "wall_seconds" in x]
    assert walls == sorted(walls)
    assert not any("seconds" in name for name in read_metrics(run))


def test_works_outside_the_main_thread(run):
    thread = threading.Thread(target=toy.train, args=(run,), kwargs={"total_steps": 10})
    thread.start()
    thread.join()
    assert run.info["status"] == "done"


def test_progress_reports_metric_speed_and_time_left(run, capsys):
    toy.train(run, progress=True)
    assert "toy: step 40/40, loss" in (shown := capsys.readouterr().err)
    assert "steps/s, 0 s left" in shown


def test_the_rate_leaves_compiling_out(run, capsys, monkeypatch):
    waited, clock, build = [0.0], time.perf_counter, loop._compile_chunk
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + waited[0])

    def slow(*args):
        assert "toy: compiling" in capsys.readouterr().err
        waited[0] = 1e6
        return build(*args)

    monkeypatch.setattr(loop, "_compile_chunk", slow)
    toy.train(run, progress=True)
    rate = re.search(r", ([\d.e+]+) steps/s", capsys.readouterr().err)
    assert rate is not None
    assert float(rate[1]) > 0.1
