"""Decoders over integer tokens as base models: GPT-2 and the Llama family in Hugging Face layout, and foreign blocks.

config.py    settings, from and to config.json
decoder.py   the forward pass, whole and cached, cut anywhere
layout.py    weights from and to safetensors with Hugging Face's names
adapter.py   models of other libraries that are made of blocks with a cache
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internal_rl.models.decoders.adapter import from_blocks
    from internal_rl.models.decoders.config import DecoderConfig
    from internal_rl.models.decoders.decoder import decoder_network
    from internal_rl.models.decoders.layout import load_hf, save_hf

__all__ = ["DecoderConfig", "decoder_network", "from_blocks", "load_hf", "save_hf"]

_MODULES = {
    "DecoderConfig": "config",
    "decoder_network": "decoder",
    "from_blocks": "adapter",
    "load_hf": "layout",
    "save_hf": "layout",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
