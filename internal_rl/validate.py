"""Checks a config before anything is compiled or written: one clear `UserError` for the first wrong
field."""

import dataclasses
import math
from typing import Any

from agents.credit.config import check_sampled
from internal_rl import build
from internal_rl.config import Config, ModelConfig, OptimizerConfig, ReinforceConfig, RuntimeConfig
from internal_rl.errors import UserError
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.loop import check_steps

# Lower bounds by dotted name. Every other number is checked below or may be anything.
_AT_LEAST_ONE = (
    *("pretrain.batch_size", "discover.batch_size"),
    *("evaluate.episodes", "evaluate.steering_steps"),
    *("metacontroller.code_dim", "metacontroller.history_dim", "metacontroller.embedding_dim"),
    *("metacontroller.embedding_width", "metacontroller.embedding_depth"),
    *("metacontroller.encoder_hidden", "metacontroller.switch_hidden"),
    *("metacontroller.decoder_hidden", "runtime.keep_checkpoints"),
)
_AT_LEAST_ZERO = (
    *("seed", "pretrain.obs_loss_weight", "metacontroller.rank"),
    *(
        "discover.kl_weight",
        "discover.kl_warmup_steps",
        "discover.kl_hold_steps",
        "discover.random_switch_steps",
        "discover.kl_warmup_start",
        "discover.tail_steps",
        "discover.tail_kl_weight",
        "discover.tail_kl_decay_steps",
    ),
    "discover.obs_loss_weight",
)

_MODEL_AT_LEAST_ONE = (
    *("model.width", "model.depth", "model.mlp_width", "model.num_heads", "model.head_dim"),
    *("model.lru_width", "model.lru_blocks", "model.conv_width"),
)

# Gate blocks of the sequence embedder's RG-LRU, which no field sets.
_EMBEDDER_BLOCKS = 4


def validate(config: Config, stage: str = "") -> None:
    """Raise `UserError` naming field, value and what is allowed if the pipeline cannot run with
    `config`; with `stage`, step counts of the other stages do not matter."""
    # The strict reader checks types, choices and nothing else; it also sees configs made in Python.
    config_from_json(config_to_json(config), type(config), source="config")
    _check_finite(config, "")
    for name in _AT_LEAST_ONE:
        _check(config, name, _get(config, name) >= 1, "at least 1")
    for name in _AT_LEAST_ZERO:
        _check(config, name, _get(config, name) >= 0, "at least 0")
    _check(config, "seed", config.seed < 2**32, "at most 4294967295 (32 bits)")
    if isinstance(config.model, ModelConfig):
        _check_model(config, config.model)
    _check_metacontroller(config)
    horizon = build.pretrain_world(config.env).horizon
    network = build.base_network(config.model, build.heldout_world(config.env))
    build.cut(config.discover, network)
    rank = config.metacontroller.rank
    fits = rank <= network.width
    _check(
        config, "metacontroller.rank", fits, f"0 (full) to the base model's width ({network.width})"
    )
    for part in ("pretrain", "discover", "reinforce", "raw_action"):
        _check_optimizer(config, f"{part}.optimizer", getattr(config, part).optimizer)
    _check(config, "pretrain.epsilon", 0 <= config.pretrain.epsilon < 1, "in [0, 1)")
    for name in ("reinforce", "raw_action"):
        _check_reinforce(config, name, getattr(config, name), horizon)
    is_raw = config.raw_action.method == "raw_action"
    _check(config, "raw_action.method", is_raw, "'raw_action'")
    check_runtime(config, config.runtime, stage)
    found = config.discover
    _check(config, "discover.candidates", found.candidates >= 1, "at least 1")
    decided = (
        1 <= found.select_steps <= found.steps if found.candidates > 1 else not found.select_steps
    )
    allowed = (
        f"1 to discover.steps ({found.steps})" if found.candidates > 1 else "0 with one candidate"
    )
    _check(config, "discover.select_steps", decided, allowed)
    stretch = config.discover.encoder_stretch
    _check(config, "discover.encoder_stretch", stretch == 0 or stretch >= 2, "0, or at least 2")
    schedule = config.discover.kl_hold_steps + config.discover.kl_warmup_steps
    _check(
        config,
        "discover.tail_steps",
        config.discover.tail_steps <= max(0, config.discover.steps - schedule),
        "at most what hold and warm-up leave of discover.steps "
        f"({max(0, config.discover.steps - schedule)})",
    )
    if found.tail_steps:
        falls = min(found.kl_weight, found.tail_kl_weight) > 0
        most = found.tail_steps if falls else 0
        allowed = (
            f"at most discover.tail_steps ({most})" if falls else "0 unless both α are above 0"
        )
        _check(config, "discover.tail_kl_decay_steps", found.tail_kl_decay_steps <= most, allowed)


def check_runtime(config: Config, runtime: RuntimeConfig, stage: str = "") -> None:
    """Raise `UserError` unless the steps of `stage` (without one: of all) and the checkpoints fall on logs."""
    for name in (stage,) if stage else ("pretrain", "discover", "reinforce", "raw_action"):
        count = "steps" if name in ("pretrain", "discover") else "iterations"
        check_steps(f"{name}.{count}", getattr(getattr(config, name), count), runtime)


def _check_model(config: Config, cfg: ModelConfig) -> None:
    for name in _MODEL_AT_LEAST_ONE:
        _check(config, name, _get(config, name) >= 1, "at least 1")
    _check(config, "model.init_scale", cfg.init_scale >= 0, "at least 0")
    even = cfg.num_buckets >= 2 and cfg.num_buckets % 2 == 0
    _check(config, "model.num_buckets", even, "an even number of at least 2")
    _check(
        config,
        "model.max_distance",
        cfg.max_distance > cfg.num_buckets // 2,
        f"more than half of model.num_buckets ({cfg.num_buckets})",
    )
    _check(
        config,
        "model.lru_width",
        cfg.lru_width % cfg.lru_blocks == 0,
        f"a multiple of model.lru_blocks ({cfg.lru_blocks})",
    )


def _check_metacontroller(config: Config) -> None:
    fits = config.metacontroller.embedding_width % _EMBEDDER_BLOCKS == 0
    allowed = f"a multiple of {_EMBEDDER_BLOCKS}, the gate blocks of its RG-LRU"
    _check(config, "metacontroller.embedding_width", fits, allowed)
    temperature = config.metacontroller.gate_temperature
    _check(config, "metacontroller.gate_temperature", temperature > 0, "above 0")
    rate = config.metacontroller.random_switch_rate
    _check(config, "metacontroller.random_switch_rate", 0 <= rate <= 1, "0 to 1")


def _check_optimizer(config: Config, name: str, cfg: OptimizerConfig) -> None:
    _check(config, f"{name}.learning_rate", cfg.learning_rate > 0, "above 0")
    for field in ("weight_decay", "warmup_steps", "decay_steps", "grad_clip"):
        _check(config, f"{name}.{field}", getattr(cfg, field) >= 0, "at least 0")
    decays = cfg.schedule == "cosine" or not cfg.decay_steps
    _check(config, f"{name}.decay_steps", decays, "0 unless schedule is 'cosine'")
    for field in ("b1", "b2"):
        _check(config, f"{name}.{field}", 0 <= getattr(cfg, field) < 1, "in [0, 1)")


def _check_reinforce(config: Config, name: str, cfg: ReinforceConfig, horizon: int) -> None:
    counts = ("batch_size", "epochs", "minibatches", "policy_width", "policy_lru_blocks")
    for field in (*counts, "distractor_steps"):
        _check(config, f"{name}.{field}", getattr(cfg, field) >= 1, "at least 1")
    for field in ("clip", "advantage_delta", "initial_std"):
        _check(config, f"{name}.{field}", getattr(cfg, field) > 0, "above 0")
    most = horizon if cfg.method == "internal" else 0
    fits = 0 <= cfg.abstract_steps <= most
    allowed = f"0 (all) to the world's horizon ({most})" if most else "0 for raw actions"
    _check(config, f"{name}.abstract_steps", fits, allowed)
    _check(config, f"{name}.entropy_weight", cfg.entropy_weight >= 0, "at least 0")
    _check(config, f"{name}.distractor_reward", 0 <= cfg.distractor_reward < 1, "0 to below 1")
    try:
        check_sampled(cfg.credit)
    except ValueError as error:
        raise UserError(f"{name}.{error}") from None
    allowed = cfg.method == "internal" or cfg.credit.method == "trajectory"
    _check(config, f"{name}.credit.method", allowed, "'trajectory' for raw actions")
    inside = 0 < cfg.switch_threshold < 1
    _check(config, f"{name}.switch_threshold", inside, "between 0 and 1, both excluded")
    _check(
        config,
        f"{name}.batch_size",
        cfg.batch_size % cfg.minibatches == 0,
        f"a multiple of {name}.minibatches ({cfg.minibatches})",
    )
    _check(
        config,
        f"{name}.policy_width",
        cfg.policy_width % cfg.policy_lru_blocks == 0,
        f"a multiple of {name}.policy_lru_blocks ({cfg.policy_lru_blocks})",
    )


def _check_finite(config: Any, prefix: str) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{prefix}{field.name} is {value}; allowed: a finite number")


def _get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _check(config: Config, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {_get(config, name)!r}; allowed: {allowed}")
