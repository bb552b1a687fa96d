"""Remake the golden data: tiny random decoders and their logits from torch transformers, which our tests don't import.

In an environment of its own: pip install torch transformers safetensors numpy, then

    python tests/internal_rl/models/decoders/make_golden.py

Weights are perturbed after transformers' initialisation, so that no bias is zero and no norm is one.
"""

from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent / "golden"
VOCABULARY, STEPS, ROWS = 24, 12, 2
LLAMA = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
)
CONFIGS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=4, n_positions=32
    ),
    "llama": transformers.LlamaConfig(**LLAMA, rms_norm_eps=1e-5),
    "llama-tied": transformers.LlamaConfig(
        **{**LLAMA, "num_key_value_heads": 4}, tie_word_embeddings=True
    ),
    "qwen2": transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**LLAMA, head_dim=6),
}


def main() -> None:
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            tokens = torch.randint(0, VOCABULARY, (ROWS, STEPS))
            logits = model(tokens).logits
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        np.savez(folder / "logits.npz", tokens=tokens.numpy(), logits=logits.numpy())


if __name__ == "__main__":
    main()
