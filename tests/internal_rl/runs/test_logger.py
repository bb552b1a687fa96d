import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.runs import run_dir
from internal_rl.runs.logger import Logger, drop_after, read_lines, read_metrics, to_json


@pytest.fixture
def run(tmp_path):
    return run_dir.create(tmp_path / "run", "toy", Config())


def test_lines_and_columns(run):
    with Logger(run, tensorboard=False) as logger:
        logger.metrics(5, {"loss": np.float32(0.1), "rate": np.array([0.5, np.nan], np.float32)})
        logger.metrics(10, {"loss": jnp.float32(0.2)})
        logger.timing(5, {"seconds": 1.5})
    lines = run.metrics_file.read_text().splitlines()
    assert lines[0] == '{"step": 5, "loss": 0.1, "rate": [0.5, null]}'
    columns = read_metrics(run)
    np.testing.assert_array_equal(columns["step"], [5, 10])
    np.testing.assert_array_equal(columns["rate"], [[0.5, np.nan], [np.nan, np.nan]])
    assert read_lines(run.timing_file) == [{"step": 5, "seconds": 1.5}]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 3.4e38, 123456.79, 16777217.0, -0.0])
def test_float32_survives_exactly(value):
    number = np.float32(value)
    again = np.float32(json.loads(json.dumps(to_json(number))))
    assert again.tobytes() == number.tobytes()


def test_values():
    assert to_json(np.int32(3)) == 3
    assert to_json(True) is True
    assert to_json(float("inf")) is None
    assert to_json(jnp.ones(2)) == [1.0, 1.0]


def test_drop_after_keeps_bytes_and_removes_what_was_cut_off(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "x": 1.50}\n{"step": 2}\n{"step": 3}\n{"step": 4, "x')
    drop_after(file, 2)
    assert file.read_text() == '{"step": 1, "x": 1.50}\n{"step": 2}\n'
    drop_after(tmp_path / "absent.jsonl", 0)
    assert (tmp_path / "absent.jsonl").read_text() == ""


def test_a_damaged_line_names_the_file(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("{broken\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_lines(file)


def test_tensorboard_events_are_written(run):
    with Logger(run) as logger:
        logger.metrics(5, {"loss": np.float32(0.1), "rate": np.array([0.25, 0.5])})
    (events,) = run.tensorboard_dir.iterdir()
    data = events.read_bytes()
    for name in (b"loss", b"rate", b"rate/seed_0", b"rate/seed_1"):
        assert name in data


def test_tensorboard_leaves_out_what_is_not_finite(run, caplog):
    """Its writer logs a warning for each such number, thousands in shadow training."""
    with Logger(run) as logger:
        logger.metrics(5, {"bias": np.array([-np.inf, 2.0]), "snr": np.nan})
    (events,) = run.tensorboard_dir.iterdir()
    data = events.read_bytes()
    assert b"bias/seed_1" in data
    for name in (b"bias/seed_0", b"snr"):
        assert name not in data
    assert not caplog.records
    assert json.loads(run.metrics_file.read_text())["bias"] == [None, 2.0]


def test_wandb_is_imported_only_when_asked_for(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    Logger(run, tensorboard=False).close()
    with pytest.raises(UserError, match=r"pip install 'internal-rl\[wandb\]'"):
        Logger(run, tensorboard=False, wandb="project")


class FakeWandb:
    """Stands in for the wandb module."""

    def __init__(self):
        self.settings, self.logged, self.finished = {}, [], False

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self):
        self.finished = True


def test_wandb_receives_config_and_numbers(run, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Logger(run, tensorboard=False, wandb="project") as logger:
        logger.metrics(5, {"loss": 0.5})
    assert fake.settings["project"] == "project"
    assert fake.settings["config"]["env"]["grid_size"] == Config().env.grid_size
    assert fake.logged == [(5, {"loss": 0.5})]
    assert fake.finished
