"""`internal-rl adopt`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import configs
from internal_rl.commands.flags import DEFAULT_PRESET, filled, preset
from internal_rl.config import BaseModelConfig, DataConfig, EnvConfig, ModelConfig, PinpadConfig
from internal_rl.errors import UserError


@dataclass
class Command:
    """Make a pretrained model a run of stage 1, without training: discovery and RL go on from it."""

    run: Path
    """Run directory to make."""
    hf: Path | None = None
    """Folder in Hugging Face layout (config.json, safetensors): GPT-2, Llama, Qwen2 or Qwen3; names model and weights."""
    weights: Path | None = None
    """Safetensors file with the weights of --model.name; leaf names are paths joined by '/'."""
    preset: str = DEFAULT_PRESET
    """Named config for the world and the stages to come, or path/to/file.py:NAME of your own."""
    seed: int = 0
    """Seed of the runs to come, and of the checks."""
    check: bool = True
    """Check the model against its contract first (internal-rl check)."""
    overwrite: bool = False
    """Replace an existing run directory."""
    env: EnvConfig = field(default_factory=PinpadConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: BaseModelConfig = field(default_factory=ModelConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Fields of the named preset."""
    return filled(Command, preset(argv))


def run(args: Command) -> None:
    """Load, check, write the run."""
    from internal_rl.adopt import adopt

    if (args.hf is None) == (args.weights is None):
        raise UserError("hf and weights: allowed is exactly one of them")
    config = dataclasses.replace(
        configs.get(args.preset), seed=args.seed, env=args.env, data=args.data, model=args.model
    )
    made = adopt(
        config,
        args.run,
        hf=args.hf,
        weights=args.weights,
        check=args.check,
        overwrite=args.overwrite,
    )
    print(f"adopt: done, in {made.path}")
