"""Adoption: a pretrained model becomes a finished run of stage 1, from which discovery and RL go on."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from internal_rl import build
from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.models.check import check_split_model
from internal_rl.models.contract import Params, SplitNetwork
from internal_rl.models.decoders import load_hf
from internal_rl.pipeline import run_of_weights
from internal_rl.runs.checkpoint import export_params, read_weights
from internal_rl.runs.run_dir import RunDir
from internal_rl.validate import validate


def adopt(
    config: Config,
    path: Path,
    *,
    hf: Path | None = None,
    weights: Path | None = None,
    check: bool = True,
    overwrite: bool = False,
) -> RunDir:
    """A run of stage pretrain in `path` around weights that were trained elsewhere.

    Args:
        config: world and stages to come; with `hf` its model is replaced by the folder's.
        hf: folder in Hugging Face layout.
        weights: safetensors file for `config.model`; leaf names are paths joined by '/'.
        check: refuse a model that breaks its contract (`check_split_model`).

    Raises:
        UserError: files are missing, a weight is missing or has the wrong shape, or the model breaks its contract.
    """
    params: Any = None
    if hf is not None:
        model, params = load_hf(hf)
        config = replace(config, model=model)
    validate(config, "pretrain")
    world = build.pretrain_world(config.env)
    network = build.base_network(config.model, world)
    if weights is not None:
        template = jax.eval_shape(network.init, jax.random.key(0))
        params = read_weights(weights, template)
    if check:
        _check(config, network, params, world)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pretrain.safetensors"
        made_from = {"stage": "pretrain", "adopted": str(hf or weights), "settings": {}}
        export_params(file, params, made_from)
        files = {f.name: f.read_bytes() for f in (file, file.with_suffix(".json"))}
    return run_of_weights("pretrain", config, path, files, overwrite=overwrite)


def _check(config: Config, network: SplitNetwork, params: Params, world: Any) -> None:
    layer = build.cut(config.discover, network)
    problems = check_split_model(
        network, params, world.obs_spec, world.action_spec, layers=(layer,), seed=config.seed
    )
    if problems:
        more = f" (and {len(problems) - 1} more: internal-rl check)" if len(problems) > 1 else ""
        raise UserError(f"model {config.model.name}: {problems[0]}{more}")
