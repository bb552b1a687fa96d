"""Weights of decoders under Hugging Face's names: a folder with config.json and safetensors, nothing else.

GPT-2 stores its matrices input first and queries, keys and values fused; the Llama family stores every matrix output
first.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file
from safetensors.numpy import save_file

from internal_rl.errors import UserError
from internal_rl.models.contract import Params
from internal_rl.models.decoders.config import DecoderConfig, from_hf, to_hf
from internal_rl.models.decoders.decoder import init

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_IGNORED = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")  # buffers of old files


def load_hf(folder: str | Path) -> tuple[DecoderConfig, Params]:
    """Settings and float32 weights of a folder.

    Raises:
        UserError: a file or a weight is missing, a weight has the wrong shape, one is left over, or the config asks for
        what
            we do not have.
    """
    folder = Path(folder)
    try:
        cfg = from_hf(_json(folder / CONFIG))
    except ValueError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    found = _read(folder)
    wanted = _names(cfg, jax.eval_shape(lambda key: init(cfg, key), jax.random.key(0)))
    for name, (shape, _) in wanted.items():
        if name not in found:
            raise UserError(f"{folder}: weight {name} is missing; expected shape {list(shape)}")
        if found[name].shape != shape:
            raise UserError(
                f"{folder}: weight {name} has shape {list(found[name].shape)}; expected {list(shape)}"
            )
    for name in found:
        if name not in wanted and not (name == "lm_head.weight" and cfg.tied_head):
            raise UserError(f"{folder}: weight {name} is not part of a {cfg.family} of this size")
    params: dict[str, Any] = {}
    for name, (_, places) in wanted.items():
        for path, value in _ours(name, found[name], places):
            _put(params, path, value)
    return cfg, params


def save_hf(folder: str | Path, cfg: DecoderConfig, params: Params) -> None:
    """Write config.json and model.safetensors.

    Raises:
        UserError: one of them exists.
    """
    folder = Path(folder)
    for file in (folder / CONFIG, folder / WEIGHTS):
        if file.exists():
            raise UserError(f"{file} exists; choose another folder")
    vocabulary = params["embed"]["embedding"].shape[0]
    cfg = replace(cfg, vocab_size=vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (_, places) in _names(cfg, params).items():
        parts = [np.asarray(_get(params, path)) for path in places]
        tensors[name] = np.ascontiguousarray(_theirs(name, parts))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder.stat().st_mode & 0o666) or 0o644)
    (folder / CONFIG).write_text(json.dumps(to_hf(cfg), indent=2) + "\n", encoding="utf-8")


Places = tuple[str, ...]


def _names(cfg: DecoderConfig, params: Params) -> dict[str, tuple[tuple[int, ...], Places]]:
    """Hugging Face's name → its shape there, and the leaves of ours that it holds. `params`: weights, or their shapes."""
    blocks = [_block_names(cfg, i) for i in range(cfg.depth)]
    names: dict[str, Places] = {}
    if cfg.family == "gpt2":
        names |= {"wte.weight": ("embed/embedding",), "wpe.weight": ("position/embedding",)}
        names |= {"ln_f.weight": ("final_norm/scale",), "ln_f.bias": ("final_norm/bias",)}
    else:
        names |= {"embed_tokens.weight": ("embed/embedding",), "norm.weight": ("final_norm/scale",)}
    for block in blocks:
        names |= block
    if not cfg.tied_head:
        names["lm_head.weight"] = ("head/kernel",)
    shapes = {}
    for name, places in names.items():
        parts = [jax.ShapeDtypeStruct(_get(params, p).shape, np.float32) for p in places]
        shapes[name] = (jax.eval_shape(lambda *x, n=name: _theirs(n, x), *parts).shape, places)
    return shapes


def _block_names(cfg: DecoderConfig, i: int) -> dict[str, Places]:
    here = f"blocks/{i}"
    qkv = ("query", "key", "value")
    names: dict[str, Places] = {}
    if cfg.family == "gpt2":
        for ours, theirs in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            names[f"h.{i}.{theirs}.weight"] = (f"{here}/{ours}/scale",)
            names[f"h.{i}.{theirs}.bias"] = (f"{here}/{ours}/bias",)
        for leaf, kind in (("weight", "kernel"), ("bias", "bias")):
            names[f"h.{i}.attn.c_attn.{leaf}"] = tuple(f"{here}/attention/{p}/{kind}" for p in qkv)
            names[f"h.{i}.attn.c_proj.{leaf}"] = (f"{here}/attention/out/{kind}",)
            names[f"h.{i}.mlp.c_fc.{leaf}"] = (f"{here}/mlp/up/{kind}",)
            names[f"h.{i}.mlp.c_proj.{leaf}"] = (f"{here}/mlp/down/{kind}",)
        return names
    there = f"layers.{i}"
    names[f"{there}.input_layernorm.weight"] = (f"{here}/attention_norm/scale",)
    names[f"{there}.post_attention_layernorm.weight"] = (f"{here}/mlp_norm/scale",)
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
        names[f"{there}.self_attn.{theirs}_proj.weight"] = (f"{here}/attention/{ours}/kernel",)
        if cfg.family == "qwen2" and ours != "out":
            names[f"{there}.self_attn.{theirs}_proj.bias"] = (f"{here}/attention/{ours}/bias",)
    if cfg.family == "qwen3":
        for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            names[f"{there}.self_attn.{theirs}.weight"] = (f"{here}/attention/{ours}/scale",)
    for ours in ("gate", "up", "down"):
        names[f"{there}.mlp.{ours}_proj.weight"] = (f"{here}/mlp/{ours}/kernel",)
    return names


def _theirs(name: str, parts: Any) -> Any:
    """Our leaves as one tensor of theirs; NumPy or traced."""
    if len(parts) > 1:  # GPT-2's fused queries, keys and values
        xp = np if isinstance(parts[0], np.ndarray) else jax.numpy
        return xp.concatenate(list(parts), axis=-1)
    return parts[0].T if _output_first(name, parts[0]) else parts[0]


def _ours(name: str, tensor: np.ndarray, places: Places) -> list[tuple[str, np.ndarray]]:
    parts = np.split(tensor, len(places), axis=-1)
    return [
        (path, part.T if len(places) == 1 and _output_first(name, part) else part)
        for path, part in zip(places, parts, strict=True)
    ]


def _output_first(name: str, tensor: Any) -> bool:
    matrix = name.startswith("layers.") or name == "lm_head.weight"
    return matrix and len(tensor.shape) == 2


def _read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors as float32 NumPy arrays, without the prefix of the model inside."""
    if (folder / INDEX).is_file():
        files = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
    else:
        files = [WEIGHTS]
    found = {}
    for file in files:
        path = folder / file
        if not path.is_file():
            raise UserError(f"{path} does not exist; allowed: a folder with {CONFIG} and {WEIGHTS}")
        try:
            with safe_open(str(path), framework="np"):
                pass  # the header is checked, with one error for whatever is wrong
            tensors: Mapping[str, Any] = load_file(str(path))
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        for name, tensor in tensors.items():
            short = name.removeprefix("transformer.").removeprefix("model.")
            if not short.endswith(_IGNORED):
                found[short] = np.asarray(tensor).astype(np.float32)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(
            f"{path} does not exist; allowed: a folder with {CONFIG} and {WEIGHTS}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: the top level is a {type(found).__name__}; allowed: an object")
    return found


def _get(tree: Any, path: str) -> Any:
    for part in path.split("/"):
        tree = tree[part]
    return tree


def _put(tree: dict[str, Any], path: str, value: np.ndarray) -> None:
    *above, leaf = path.split("/")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[leaf] = jax.numpy.asarray(value)
