"""Datasets on disk: what is written is read, and a wrong or damaged folder is refused."""

import json
from dataclasses import fields
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.pinpad import dataset, expert
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.tasks import encode_tasks

ENV, TASKS, HORIZON = GridPinpad(3, 3, 1), ("012", "21"), 16


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "expert"
    return dataset.write_dataset(path, ENV, TASKS, 50, HORIZON, seed=3, epsilon=0.1, chunk=32)


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may damage."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in written.path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_round_trip(written):
    """The files hold what the generator gives for the same keys."""
    opened = dataset.open_dataset(written.path, ENV, TASKS, HORIZON)
    assert len(opened) == 50
    everything = opened.batch(np.arange(50))
    tasks = encode_tasks(TASKS, 3)
    generate = jax.jit(lambda key: expert.generate(key, ENV, tasks, 32, HORIZON, 0.1)[0])
    parts = [generate(jax.random.fold_in(jax.random.key(3), start)) for start in (0, 32)]
    expected = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[:50], *parts)
    jax.tree.map(np.testing.assert_array_equal, everything, expected)
    for field in fields(expert.Trajectories):
        assert getattr(everything, field.name).dtype == jnp.int32
        assert isinstance(opened.arrays[field.name], np.memmap)


def test_manifest_tells_how_the_data_was_made(written):
    manifest = json.loads((written.path / "manifest.json").read_text())
    assert manifest["env"] == {"grid_size": 3, "num_objects": 3, "num_walls": 1}
    settings = {"schema_version": 1, "tasks": ["012", "21"], "count": 50, "horizon": 16, "seed": 3}
    assert settings.items() <= manifest.items()
    assert manifest["files"]["agent"]["shape"] == [50, 17]


def test_nothing_is_overwritten_and_no_debris_is_left(written):
    with pytest.raises(FileExistsError, match="exists; choose another folder"):
        dataset.write_dataset(written.path, ENV, TASKS, 5, HORIZON, seed=0)
    with pytest.raises(ValueError, match="horizon=1: task 012"):
        dataset.write_dataset(written.path.parent / "short", ENV, TASKS, 5, 1, seed=0)
    assert [path.name for path in written.path.parent.iterdir()] == ["expert"]


def test_batches_are_random_endless_and_resumable(written):
    first = list(islice(dataset.batches(written, 64, seed=1), 4))
    assert all(batch.length.shape == (64,) for batch in first)
    resumed = next(dataset.batches(written, 64, seed=1, start=2))
    jax.tree.map(np.testing.assert_array_equal, resumed, first[2])
    assert not (first[0].agent == first[1].agent).all()
    other = next(dataset.batches(written, 64, seed=2))
    assert not (first[0].agent == other.agent).all()
    with pytest.raises(ValueError, match="batch_size=0"):
        dataset.batches(written, 0, seed=1)


def test_a_grid_without_walls(tmp_path):
    env = GridPinpad(3, 2, 0)
    data = dataset.write_dataset(tmp_path / "open", env, ("01",), 4, 8, seed=0)
    assert dataset.open_dataset(data.path).batch(np.arange(4)).walls.shape == (4, 0)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"env": GridPinpad(4, 3, 1)}, "made with env={'grid_size': 3.*expected {'grid_size': 4"),
        ({"tasks": ("012",)}, r"made with tasks=\['012', '21'\], expected \['012'\]"),
        ({"horizon": 20}, "made with horizon=16, expected 20"),
    ],
)
def test_other_settings_are_refused(written, expected, message):
    with pytest.raises(ValueError, match=message):
        dataset.open_dataset(written.path, **expected)


def test_damage_is_refused(folder):
    file = folder / "action.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"action\.npy is corrupt: its SHA-256 differs"):
        dataset.open_dataset(folder)
    assert len(dataset.open_dataset(folder, verify=False)) == 50
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"action\.npy is corrupt: \d+ bytes, the manifest says"):
        dataset.open_dataset(folder, verify=False)
    file.unlink()
    with pytest.raises(ValueError, match=r"action\.npy is missing"):
        dataset.open_dataset(folder)


def test_bad_manifests_are_refused(folder):
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    for change, message in (
        ({"schema_version": 2}, "schema_version=2, this code reads 1"),
        ({"files": {}}, "lacks action, agent"),
    ):
        manifest.write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=message):
            dataset.open_dataset(folder)
    manifest.write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        dataset.open_dataset(folder)
    manifest.unlink()
    with pytest.raises(FileNotFoundError, match="is not a dataset folder"):
        dataset.open_dataset(folder)
