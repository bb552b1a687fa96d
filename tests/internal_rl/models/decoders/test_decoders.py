"""Decoders against transformers' logits, and against themselves: whole, cached, cut, with resets."""

import dataclasses
import json
import shutil
import stat
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.errors import UserError
from internal_rl.models.check import check_split_model
from internal_rl.models.decoders import DecoderConfig, decoder_network, load_hf, save_hf
from internal_rl.models.decoders.config import from_hf

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir())
TOKENS = 24
SPECS = ObservationSpec(num_tokens=TOKENS), ActionSpec(num_actions=TOKENS)


def loaded(name):
    cfg, params = load_hf(GOLDEN / name)
    with np.load(GOLDEN / name / "logits.npz") as data:
        tokens = jnp.asarray(data["tokens"], jnp.int32)
        return decoder_network(cfg, *SPECS, 16), params, tokens, data["logits"]


def logits(model, tokens, reset=None):
    _, e = model.lower(tokens, None, reset)
    return model.upper(e, None, reset)[1]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name):
    network, params, tokens, expected = loaded(name)
    for layer in range(network.depth + 1):
        found = jax.jit(lambda p, x, n=layer: logits(network.bind(p, n), x))(params, tokens)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).max() > 1  # or the tolerance would mean nothing


@pytest.mark.parametrize("name", NAMES)
def test_cached_decoding_is_the_whole_pass_with_resets_anywhere(name):
    network, params, tokens, _ = loaded(name)
    model = network.bind(params, 1)
    reset = np.zeros(tokens.shape, bool)
    reset[:, 0] = reset[0, 5] = reset[1, 7] = reset[1, 8] = True
    whole = logits(model, tokens, jnp.asarray(reset))
    for cuts in ([4, 9], list(range(1, 12))):
        lower, upper = model.init_carry(2)
        parts = []
        for piece, marks in zip(
            np.split(tokens, cuts, axis=1), np.split(reset, cuts, axis=1), strict=True
        ):
            lower, e = model.lower(jnp.asarray(piece), lower, jnp.asarray(marks))
            upper, out = model.upper(e, upper, jnp.asarray(marks))
            parts.append(out)
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_row_is_as_its_trajectories_alone(name):
    """Nothing is attended to across a reset, and positions count from 0 again."""
    network, params, tokens, _ = loaded(name)
    model = network.bind(params, 1)
    reset = np.zeros(tokens.shape, bool)
    reset[:, [0, 5]] = True
    packed = logits(model, tokens, jnp.asarray(reset))
    np.testing.assert_allclose(packed[:, :5], logits(model, tokens[:, :5]), atol=1e-5)
    np.testing.assert_allclose(packed[:, 5:], logits(model, tokens[:, 5:]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_decoders_keep_the_contract(name):
    network, params, _, _ = loaded(name)
    assert check_split_model(network, params, *SPECS, layers=(1,)) == []


def test_the_action_is_the_next_token_among_those_the_world_has():
    cfg, params = load_hf(GOLDEN / "llama")
    network = decoder_network(cfg, ObservationSpec(num_tokens=10), ActionSpec(num_actions=10), 16)
    model = network.bind(params, 1)
    out = logits(model, jnp.zeros((1, 3), jnp.int32))
    assert out.shape[-1] == TOKENS
    every = jnp.broadcast_to(jnp.arange(10, dtype=jnp.int32), (1, 10))
    log_prob = model.action_distribution(jnp.broadcast_to(out[:, :1], (1, 10, TOKENS))).log_prob(
        every
    )
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_come_back_bit_for_bit(name, tmp_path):
    cfg, params = load_hf(GOLDEN / name)
    save_hf(tmp_path / "copy", cfg, params)
    again, same = load_hf(tmp_path / "copy")
    assert again == cfg
    jax.tree.map(np.testing.assert_array_equal, same, params)
    mode = stat.S_IMODE((tmp_path / "copy" / "model.safetensors").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "copy" / "config.json").stat().st_mode)


def test_sharded_weights_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(GOLDEN / "llama" / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(GOLDEN / "llama" / "config.json", tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load_hf(tmp_path)[1], load_hf(GOLDEN / "llama")[1])


def test_half_precision_is_read_as_float32(tmp_path):
    from safetensors.flax import load_file, save_file

    for file in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "qwen3" / file, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v.astype(jnp.bfloat16) for k, v in tensors.items()}, tmp_path / "model.safetensors"
    )
    exact = load_hf(GOLDEN / "qwen3")[1]
    for found, wanted in zip(
        jax.tree.leaves(load_hf(tmp_path)[1]), jax.tree.leaves(exact), strict=True
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16).astype(jnp.float32))


def broken(tmp_path, change_config=None, change_weights=None):
    from safetensors.numpy import load_file, save_file

    for file in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "gpt2" / file, tmp_path)
    if change_config:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | change_config))
    if change_weights:
        tensors = load_file(tmp_path / "model.safetensors")
        change_weights(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as error:
        load_hf(tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_weight_is_named(tmp_path):
    message = broken(tmp_path, change_weights=lambda t: t.pop("transformer.h.1.mlp.c_fc.weight"))
    assert "weight h.1.mlp.c_fc.weight is missing; expected shape [16, 64]" in message


def test_a_weight_of_the_wrong_shape_is_named(tmp_path):
    def cut(tensors):
        tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:8].copy()

    message = broken(tmp_path, change_weights=cut)
    assert "weight wpe.weight has shape [8, 16]; expected [32, 16]" in message


def test_a_weight_too_many_is_named(tmp_path):
    def add(tensors):
        tensors["transformer.h.0.extra.weight"] = np.zeros(3, np.float32)

    assert "weight h.0.extra.weight is not part of a gpt2" in broken(tmp_path, change_weights=add)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; allowed: gpt2, llama, qwen2, qwen3"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; allowed: 'gelu_new'"),
        ({"n_head": 3}, "num_heads=3: allowed is a divisor of width (16)"),
        ({"n_layer": None}, "n_layer is None; allowed: an integer"),
    ],
)
def test_a_config_that_we_do_not_have_is_refused(change, says, tmp_path):
    assert says in broken(tmp_path, change_config=change)


@pytest.mark.parametrize("change", [{"rope_scaling": {"type": "linear"}}, {"hidden_act": "gelu"}])
def test_options_that_change_the_maths_are_refused(change):
    config = json.loads((GOLDEN / "llama" / "config.json").read_text())
    with pytest.raises(ValueError, match=next(iter(change))):
        from_hf(config | change)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config.json does not exist; allowed: a folder with"):
        load_hf(tmp_path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    shutil.copy(GOLDEN / "gpt2" / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(UserError, match="cannot be read"):
        load_hf(tmp_path)


def test_a_decoder_wants_a_world_of_tokens_that_it_knows():
    cfg = dataclasses.replace(load_hf(GOLDEN / "gpt2")[0])
    with pytest.raises(ValueError, match="allowed in worlds of integer tokens"):
        decoder_network(cfg, ObservationSpec(dim=3), ActionSpec(num_actions=4), 16)
    with pytest.raises(ValueError, match="vocab_size=24: allowed is the world's 30 or more"):
        decoder_network(cfg, ObservationSpec(num_tokens=30), ActionSpec(num_actions=30), 16)
    with pytest.raises(ValueError, match="max_positions=32: allowed"):
        decoder_network(cfg, *SPECS, 40)


def test_fresh_weights_are_those_of_gpt2():
    cfg = DecoderConfig(width=64, depth=4, num_heads=4, mlp_width=128, init_std=0.02)
    params = decoder_network(cfg, *SPECS, 16).init(jax.random.key(0))
    block = params["blocks"]["2"]
    np.testing.assert_allclose(np.std(block["mlp"]["up"]["kernel"]), 0.02, rtol=0.05)
    np.testing.assert_allclose(np.std(block["mlp"]["down"]["kernel"]), 0.02 / 8**0.5, rtol=0.05)
