"""`internal-rl check`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import configs
from internal_rl.commands.flags import DEFAULT_PRESET, filled, preset
from internal_rl.config import (
    BaseModelConfig,
    DataConfig,
    EnvConfig,
    ModelConfig,
    PinpadConfig,
    PretrainConfig,
)
from internal_rl.errors import UserError


@dataclass
class Command:
    """Check a world, its demonstrations and a base model against their contracts, before training on them."""

    preset: str = DEFAULT_PRESET
    """Named config, or path/to/file.py:NAME of your own; the flags below change single fields."""
    seed: int = 0
    """Seed of the weights and of the episodes that are tried."""
    env: EnvConfig = field(default_factory=PinpadConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: BaseModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


def defaults(argv: Sequence[str]) -> Command:
    """Fields of the named preset."""
    return filled(Command, preset(argv))


def run(args: Command) -> None:
    """Print what was checked; every problem is a line, and with any the command fails."""
    import jax

    from envs.check import check_world
    from internal_rl import build
    from internal_rl.demonstrations.check import check_demonstrations
    from internal_rl.models.check import check_split_model

    names = ("seed", "env", "data", "model", "pretrain")
    config = dataclasses.replace(
        configs.get(args.preset), **{name: getattr(args, name) for name in names}
    )
    found = 0

    def report(what: str, problems: Sequence[str]) -> None:
        nonlocal found
        found += len(problems)
        print(f"{what}: {'ok' if not problems else f'{len(problems)} problem(s)'}")
        for problem in problems:
            print(f"  {problem}")

    train, heldout = build.pretrain_world(config.env), build.heldout_world(config.env)
    for what, world in (("pretraining world", train), ("held-out world", heldout)):
        report(f"{what} {config.env.world}", check_world(world, seed=config.seed))
    for clean in (False, True):
        source = build.demonstrations(config, train, clean=clean)
        problems = check_demonstrations(
            source, train.obs_spec, train.action_spec, num_goals=train.num_goals
        )
        report(f"demonstrations ({'clean' if clean else 'pretraining'})", problems)
    network = build.base_network(config.model, train)
    params = jax.jit(network.init)(jax.random.key(config.seed))
    report(
        f"base model {config.model.name}",
        check_split_model(network, params, train.obs_spec, train.action_spec, seed=config.seed),
    )
    if found:
        raise UserError(f"{found} problem(s), listed above; allowed: none")
