import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from internal_rl.errors import UserError
from internal_rl.runs.checkpoint import Checkpoints, export_params, import_params


@struct.dataclass
class State:
    step: jax.Array
    key: jax.Array
    keys: jax.Array
    params: dict
    opt_state: object


def make_state(seed=0):
    key = jax.random.key(seed)
    params = {
        "dense": {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.zeros(4)},
        "blocks": [jnp.full((2,), jnp.pi, jnp.bfloat16), jnp.arange(3, dtype=jnp.int32)],
    }
    opt_state = optax.adam(1e-3).init(params)
    return State(jnp.int32(seed), key, jax.random.split(key, 3), params, opt_state)


def assert_bitwise_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of the steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, make_state(step))
    yield checkpoints
    checkpoints.close()


def biggest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip_is_bitwise(saved, abstract):
    template = jax.eval_shape(make_state) if abstract else make_state(5)
    step, state = Checkpoints(saved.folder).restore_latest(template)
    assert step == 2
    assert_bitwise_equal(state, make_state(2))
    # A restored key continues the same stream.
    assert_bitwise_equal(jax.random.split(state.key, 2), jax.random.split(make_state(2).key, 2))


def test_only_the_newest_are_kept(saved):
    saved.save(3, make_state(3))
    assert saved.steps() == [2, 3]
    assert sorted(p.name for p in saved.folder.iterdir()) == ["2", "3"]
    with pytest.raises(ValueError, match="already holds a checkpoint of step 3"):
        saved.save(3, make_state(3))


def test_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "absent").latest_step() is None
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        Checkpoints(tmp_path / "absent").restore_latest(make_state())


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def remove(file):
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "which"),
    [
        (truncate, "weights"),
        (flip, "weights"),
        (remove, "weights"),
        (truncate, "manifest.json"),
        (flip, "manifest.json"),  # without a manifest it would be half-written, not damaged
    ],
)
def test_a_damaged_checkpoint_is_refused(saved, damage, which):
    folder = saved.folder / "2"
    damage(biggest_file(folder / "default") if which == "weights" else folder / which)
    with pytest.raises(UserError, match=r"2 is corrupt.*delete that folder to go on from step 1"):
        saved.restore_latest(make_state())
    shutil.rmtree(folder)
    assert saved.restore_latest(make_state())[0] == 1


def test_a_damaged_only_checkpoint_says_start_again(saved):
    shutil.rmtree(saved.folder / "1")
    truncate(biggest_file(saved.folder / "2" / "default"))
    with pytest.raises(UserError, match="start the run again with --overwrite"):
        saved.restore_latest(make_state())


def test_half_written_folders_are_ignored_and_replaced(saved):
    """What kill -9 leaves: orbax's temporary folder, and a folder without its manifest."""
    shutil.copytree(saved.folder / "2", saved.folder / "3")
    (saved.folder / "3" / "manifest.json").unlink()
    (saved.folder / "4.orbax-checkpoint-tmp-7").mkdir()
    fresh = Checkpoints(saved.folder)
    assert fresh.restore_latest(make_state())[0] == 2
    assert (saved.folder / "3").exists()  # reading changes nothing
    fresh.save(3, make_state(3))
    step, state = fresh.restore_latest(make_state())
    assert step == 3
    assert_bitwise_equal(state, make_state(3))
    assert sorted(p.name for p in saved.folder.iterdir()) == ["2", "3"]
    fresh.close()


def with_kernel(leaf):
    state = make_state()
    state.params["dense"]["kernel"] = leaf
    return state


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            with_kernel(jnp.zeros((3, 5))),
            r"params/dense/kernel has shape \[3, 4\] float32; expected",
        ),
        (with_kernel(jnp.zeros((3, 4), jnp.float16)), r"kernel has .* expected shape .* float16"),
        (with_kernel({"new": jnp.zeros(1)}), "leaf params/dense/kernel/new is missing"),
        (with_kernel({}), "leaf params/dense/kernel is not part of"),
    ],
)
def test_every_leaf_is_checked(saved, template, message):
    with pytest.raises(UserError, match=message):
        saved.restore_latest(template)


def test_only_arrays_can_be_saved(tmp_path):
    with pytest.raises(TypeError, match="leaf rate is a float"):
        Checkpoints(tmp_path).save(1, {"rate": 0.1})


def test_weights_round_trip(tmp_path):
    params = make_state().params
    export_params(tmp_path / "weights.safetensors", params, {"stage": "pretrain", "step": 7})
    found, metadata = import_params(
        tmp_path / "weights.safetensors", jax.eval_shape(make_state).params
    )
    assert_bitwise_equal(found, params)
    assert metadata == {"stage": "pretrain", "step": 7}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.json", "weights.safetensors"]


def test_non_contiguous_weights_keep_their_values(tmp_path):
    params = {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}
    export_params(tmp_path / "w.safetensors", params, {})
    found, _ = import_params(tmp_path / "w.safetensors", params)
    np.testing.assert_array_equal(found["w"], params["w"])


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.json"])
def test_damaged_weights_are_refused(tmp_path, name, damage):
    params = {"w": jnp.ones((8, 8))}
    export_params(tmp_path / "weights.safetensors", params, {})
    damage(tmp_path / name)
    with pytest.raises(UserError, match="weights"):
        import_params(tmp_path / "weights.safetensors", params)


def test_weights_of_another_model_are_refused(tmp_path):
    export_params(tmp_path / "w.safetensors", {"a": {"b": jnp.ones(3)}}, {})
    with pytest.raises(UserError, match=r"leaf a/b has shape \[3\] float32; expected shape \[4\]"):
        import_params(tmp_path / "w.safetensors", {"a": {"b": jnp.ones(4)}})
