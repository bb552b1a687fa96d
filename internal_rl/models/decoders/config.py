"""Settings of the decoders in Hugging Face layout. Imports no JAX, because the command line's help shows them."""

from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["gpt2", "llama", "qwen2", "qwen3"]
FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder over integer tokens: GPT-2, or one of the Llama family."""

    name: Literal["decoder"] = "decoder"
    """Which model."""
    family: Family = "gpt2"
    """gpt2: learned positions, LayerNorm, tanh-GELU. llama: RMSNorm, rotary positions, grouped queries, SwiGLU; qwen2
    adds biases on queries, keys and values, qwen3 RMSNorm on the queries and keys of every head."""
    vocab_size: int = 0
    """Tokens that the embedding knows; 0: as many as the world has."""
    width: int = 768
    """Width of the residual stream."""
    depth: int = 12
    """L: number of blocks."""
    num_heads: int = 12
    """Attention heads."""
    num_kv_heads: int = 0
    """Heads of keys and values, which groups of query heads share; 0: as many as num_heads. gpt2: 0."""
    head_dim: int = 0
    """Size of one head; 0: width / num_heads."""
    mlp_width: int = 3072
    """Hidden width of the MLP."""
    max_positions: int = 1024
    """gpt2: learned positions; rows and episodes may not be longer."""
    rope_theta: float = 10000.0
    """Llama family: base of the rotary frequencies."""
    norm_epsilon: float = 1e-5
    """ε of the norms."""
    tied_head: bool = True
    """The language-model head is the embedding."""
    init_std: float = 0.02
    """Standard deviation of fresh weights; those that write into the residual stream get init_std / √(2 L)."""

    @property
    def kv_heads(self) -> int:
        """`num_kv_heads`, or all."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_size(self) -> int:
        """`head_dim`, or the width's share."""
        return self.head_dim or self.width // self.num_heads


def check_decoder(cfg: DecoderConfig) -> None:
    """Raise ValueError naming the field, its value and what is allowed."""
    for name in ("width", "depth", "num_heads", "mlp_width", "max_positions"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name}={getattr(cfg, name)}: allowed is 1 or more")
    for name in ("vocab_size", "num_kv_heads", "head_dim"):
        if getattr(cfg, name) < 0:
            raise ValueError(f"{name}={getattr(cfg, name)}: allowed is 0 or more")
    for name in ("rope_theta", "norm_epsilon", "init_std"):
        if not getattr(cfg, name) > 0:
            raise ValueError(f"{name}={getattr(cfg, name)}: allowed is above 0")
    if not cfg.head_dim and cfg.width % cfg.num_heads:
        raise ValueError(f"num_heads={cfg.num_heads}: allowed is a divisor of width ({cfg.width})")
    if cfg.num_heads % cfg.kv_heads:
        raise ValueError(
            f"num_kv_heads={cfg.num_kv_heads}: allowed is a divisor of num_heads ({cfg.num_heads})"
        )
    if cfg.family == "gpt2":
        if cfg.kv_heads != cfg.num_heads:
            raise ValueError(f"num_kv_heads={cfg.num_kv_heads}: allowed for gpt2 is 0")
        if cfg.head_size * cfg.num_heads != cfg.width:
            raise ValueError(f"head_dim={cfg.head_dim}: allowed for gpt2 is 0")
    elif cfg.head_size % 2:
        raise ValueError(
            f"head_dim={cfg.head_size}: allowed is an even number, for rotary positions"
        )


def from_hf(config: dict[str, Any]) -> DecoderConfig:
    """The settings of a config.json.

    Raises:
        ValueError: an unknown family, a missing entry, or an option that changes the maths and that we do not have.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type is {family!r}; allowed: {', '.join(FAMILIES)}")
    if family == "gpt2":
        return _from_gpt2(config)
    _allow(config, "hidden_act", "silu")
    _allow(config, "rope_scaling", None)
    _allow(config, "use_sliding_window", False)
    _allow(config, "mlp_bias", False)
    _allow(config, "attention_bias", False)
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_parameters is {rope}; allowed: rope_type 'default'")
    num_heads = _entry(config, "num_attention_heads")
    cfg = DecoderConfig(
        family=family,
        vocab_size=_entry(config, "vocab_size"),
        width=_entry(config, "hidden_size"),
        depth=_entry(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.get("num_key_value_heads") or num_heads,
        head_dim=config.get("head_dim") or _entry(config, "hidden_size") // num_heads,
        mlp_width=_entry(config, "intermediate_size"),
        max_positions=config.get("max_position_embeddings", 2048),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        tied_head=bool(config.get("tie_word_embeddings", False)),
        init_std=float(config.get("initializer_range", 0.02)),
    )
    check_decoder(cfg)
    return cfg


def _from_gpt2(config: dict[str, Any]) -> DecoderConfig:
    _allow(config, "activation_function", "gelu_new")
    _allow(config, "scale_attn_weights", True)
    _allow(config, "scale_attn_by_inverse_layer_idx", False)
    _allow(config, "add_cross_attention", False)
    width = _entry(config, "n_embd")
    cfg = DecoderConfig(
        family="gpt2",
        vocab_size=_entry(config, "vocab_size"),
        width=width,
        depth=_entry(config, "n_layer"),
        num_heads=_entry(config, "n_head"),
        mlp_width=config.get("n_inner") or 4 * width,
        max_positions=_entry(config, "n_positions"),
        norm_epsilon=float(config.get("layer_norm_epsilon", 1e-5)),
        tied_head=bool(config.get("tie_word_embeddings", True)),
        init_std=float(config.get("initializer_range", 0.02)),
    )
    check_decoder(cfg)
    return cfg


def to_hf(cfg: DecoderConfig) -> dict[str, Any]:
    """A config.json that `from_hf` and transformers read."""
    if cfg.family == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": cfg.vocab_size,
            "n_embd": cfg.width,
            "n_layer": cfg.depth,
            "n_head": cfg.num_heads,
            "n_inner": cfg.mlp_width,
            "n_positions": cfg.max_positions,
            "layer_norm_epsilon": cfg.norm_epsilon,
            "activation_function": "gelu_new",
            "tie_word_embeddings": cfg.tied_head,
            "initializer_range": cfg.init_std,
        }
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[cfg.family]
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": cfg.family,
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_size,
        "intermediate_size": cfg.mlp_width,
        "max_position_embeddings": cfg.max_positions,
        "rope_theta": cfg.rope_theta,
        "rms_norm_eps": cfg.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": cfg.tied_head,
        "initializer_range": cfg.init_std,
    }


def _entry(config: dict[str, Any], name: str) -> int:
    if not isinstance(config.get(name), int):
        raise ValueError(f"{name} is {config.get(name)!r}; allowed: an integer")
    return config[name]


def _allow(config: dict[str, Any], name: str, value: Any) -> None:
    if config.get(name, value) != value:
        raise ValueError(f"{name} is {config[name]!r}; allowed: {value!r}")
