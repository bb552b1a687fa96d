"""Seeds split over devices: the same numbers, and no communication."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal_rl.config import Config, RuntimeConfig
from internal_rl.runs import run_dir
from internal_rl.runs.cache import count_compilations
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.logger import read_lines, read_metrics
from internal_rl.runs.seeds import largest_divisor, place, seed_mesh, split
from tests.internal_rl.runs import toy

ROOT = Path(__file__).parents[3]
TWO = replace(toy.RUNTIME, cpu_devices=2)  # tests have two CPU devices


def train(folder, name, seeds=4, runtime=TWO, **options):
    run = run_dir.create(folder / name, "toy", Config())
    states = jax.vmap(toy.init)(jnp.arange(seeds))
    return run, toy.train(run, states, runtime=runtime, seeds_axis=True, **options)


def test_split_seeds_give_the_same_numbers(tmp_path):
    (one, alone), (two, both) = (
        train(tmp_path, str(runtime.cpu_devices), runtime=runtime) for runtime in (toy.RUNTIME, TWO)
    )
    assert len(alone.w.sharding.device_set) == 1
    assert len(both.w.sharding.device_set) == 2
    assert both.w.addressable_shards[0].data.shape == (2, 4)
    np.testing.assert_allclose(both.w, alone.w, rtol=1e-5)
    expected = read_metrics(one)
    found = read_metrics(two)
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-5, err_msg=name)
    template = jax.eval_shape(lambda: jax.vmap(toy.init)(jnp.arange(4)))
    _, restored = Checkpoints(two).restore_latest(template)  # by a process with one device
    assert len(restored.w.sharding.device_set) == 1
    np.testing.assert_array_equal(restored.w, both.w)
    np.testing.assert_array_equal(jax.random.key_data(restored.key), jax.random.key_data(both.key))


def test_interrupt_and_resume_give_the_same_lines(tmp_path):
    reference, whole = train(tmp_path, "reference")

    def interrupt(state):
        if int(state.step[0]) == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt, match="saved at step 15"):
        train(tmp_path, "run", extra_metrics=interrupt)
    run = run_dir.open_run(tmp_path / "run")
    template = jax.vmap(toy.init)(jnp.arange(4))
    resumed = toy.train(run, template, runtime=TWO, seeds_axis=True, resume=True)
    np.testing.assert_array_equal(resumed.w, whole.w)
    assert run.metrics_file.read_bytes() == reference.metrics_file.read_bytes()


def test_nothing_compiles_after_the_first_chunk(tmp_path):
    seen = []
    with count_compilations() as counts:
        train(tmp_path, "run", extra_metrics=lambda _: seen.append(counts.programs) or {})
    assert seen[0] > 0
    assert seen[-1] == seen[0]


def test_devices_do_not_communicate_and_the_state_is_donated():
    mesh = seed_mesh(TWO, 4)
    states = place(jax.vmap(toy.init)(jnp.arange(4)), mesh)
    target = place(toy.TARGET, mesh, shared=True)
    one = jax.vmap(toy.update, in_axes=(0, None))
    update = split(lambda states, _, target: one(states, target), mesh)
    program = jax.jit(update, donate_argnums=0).lower(states, None, target).compile()
    text = program.as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert word not in text
    after, metrics = program(states, None, target)
    assert states.w.is_deleted()
    assert metrics["loss"].shape == (4,)
    assert after.w.sharding == target.sharding.update(spec=jax.sharding.PartitionSpec("seeds"))


@pytest.mark.parametrize("runtime", [toy.RUNTIME, TWO], ids=["one device", "two devices"])
def test_what_is_split(runtime):
    """A state alone; or with what is fed, split like it, and what is shared, whole."""
    mesh = seed_mesh(runtime, 4)
    state, fed, shared = jnp.arange(4.0), jnp.arange(8.0).reshape(4, 2), jnp.arange(3.0)
    alone = jax.jit(split(lambda x: 2 * x, mesh))(place(state, mesh))
    np.testing.assert_array_equal(alone, 2 * np.arange(4.0))
    part = 4 // mesh.size

    def function(state, fed, shared):
        assert (state.shape, fed.shape, shared.shape) == ((part,), (part, 2), (3,))
        return state + fed.sum(1) + shared.sum()

    given = (place(state, mesh), place(fed, mesh), place(shared, mesh, shared=True))
    found = jax.jit(split(function, mesh))(*given)
    np.testing.assert_array_equal(found, np.arange(4.0) + np.array([1.0, 5, 9, 13]) + 3)


@given(seeds=st.integers(1, 60), most=st.integers(1, 20))
def test_as_many_devices_as_divide_the_seeds(seeds, most):
    used = largest_divisor(seeds, most)
    assert 1 <= used <= most
    assert seeds % used == 0
    assert not any(seeds % n == 0 for n in range(used + 1, most + 1))


def test_the_field_counts_on_cpus_only(monkeypatch):
    one, many = RuntimeConfig(cpu_devices=1), RuntimeConfig(cpu_devices=9)
    assert [seed_mesh(one, n).size for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert [seed_mesh(many, n).size for n in (1, 2, 3, 4)] == [1, 2, 1, 2]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [seed_mesh(one, n).size for n in (1, 2, 3, 4)] == [1, 2, 1, 2]


def test_the_command_line_splits_seeds_over_cores(tmp_path):
    """In a process of its own: devices are fixed once JAX has started."""
    run = run_dir.RunDir(tmp_path / "run")
    words = ["credit", "train", "--preset", "cocoa-smoke", "--method", "reinforce", "--no-progress"]
    words += ["--world.key-to-door.length", "5", "--train.eval-episodes", "8", "--seeds", "4"]
    words += ["--train.batches", "2", "--runtime.log-every", "1", "--runtime.checkpoint-every", "2"]
    environment = os.environ | {"INTERNAL_RL_CACHE": str(tmp_path / "cache")}
    flags = environment["XLA_FLAGS"].split()  # without the tests' two devices
    environment["XLA_FLAGS"] = " ".join(x for x in flags if "device_count" not in x)
    command = [sys.executable, "-m", "internal_rl.commands.main", *words, "--run", str(run.path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_lines(run.timing_file)[0]["devices"] == 2
    assert read_metrics(run)["eval_return"].shape == (2, 4)
