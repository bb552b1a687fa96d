"""From a config to what it names: worlds, demonstrations, networks. The one place that knows our worlds by name.

A new world of ours is a folder in `envs/`, a config class in `internal_rl.config` and an entry here; a user's own is a
reference, `path/to/file.py:NAME`.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from agents import references
from envs.pinpad.expert import TieBreaking
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.world import PinpadWorld
from envs.tokens.language import Language
from envs.tokens.tables import CHUNKS
from envs.tokens.world import TokenWorld
from envs.world import World
from envs.world_shapes import shape_problems
from internal_rl.config import (
    BaseModelConfig,
    Config,
    DataConfig,
    DiscoverConfig,
    EnvConfig,
    ModelConfig,
    OwnModelConfig,
    OwnWorldConfig,
    PinpadConfig,
    TokenConfig,
)
from internal_rl.demonstrations.contract import Demonstrations, HostDemonstrations
from internal_rl.demonstrations.disk import MANIFEST
from internal_rl.demonstrations.pinpad import PinpadDemonstrations, mean_length
from internal_rl.demonstrations.recorded import open_recorded
from internal_rl.demonstrations.sequence import Indexable, from_sequence
from internal_rl.demonstrations.tokens import TokenDemonstrations
from internal_rl.errors import UserError
from internal_rl.models.base_model import residual_network
from internal_rl.models.contract import SplitNetwork
from internal_rl.models.decoders import decoder_network
from internal_rl.models.metacontroller import metacontroller_network
from internal_rl.models.parts import Models
from internal_rl.models.policy import policy_network

# Worlds


def pretrain_world(cfg: EnvConfig) -> World:
    """The world of the demonstrations (stages 1 and 2)."""
    return _world(cfg, cfg.pretrain_tasks, "pretrain_tasks")


def heldout_world(cfg: EnvConfig, tasks: tuple[str, ...] | None = None) -> World:
    """The world of internal RL and of the evaluation (stages 3 and 4), or the same with other tasks."""
    return _world(cfg, cfg.heldout_tasks if tasks is None else tasks, "heldout_tasks")


@lru_cache(maxsize=64)
def _world(cfg: EnvConfig, tasks: tuple[str, ...], field: str) -> World:
    make = _WORLDS.get(type(cfg), _own_world)
    return make(cfg, tasks, field)


def _pinpad(cfg: PinpadConfig, tasks: tuple[str, ...], field: str) -> World:
    with _blaming("env."):
        env = GridPinpad(
            grid_size=cfg.grid_size,
            num_objects=cfg.num_objects,
            num_walls=cfg.num_walls,
            observation=cfg.observation,
        )
    with _blaming(f"env.{field}: "):
        return PinpadWorld(env, tuple(tasks), cfg.horizon)


def _tokens(cfg: TokenConfig, tasks: tuple[str, ...], field: str) -> World:
    if not 1 <= cfg.num_chunks <= len(CHUNKS):
        raise UserError(f"env.num_chunks is {cfg.num_chunks}; allowed: 1 to {len(CHUNKS)}")
    with _blaming("env."):
        language = Language(CHUNKS[: cfg.num_chunks], symbols=cfg.symbols)
    with _blaming(f"env.{field}: "):
        return TokenWorld(language, tuple(tasks), cfg.horizon, cfg.fail_early)


_WORLDS: dict[type, Callable[[Any, tuple[str, ...], str], World]] = {
    PinpadConfig: _pinpad,
    TokenConfig: _tokens,
}


@contextlib.contextmanager
def _blaming(prefix: str) -> Iterator[None]:
    """A ValueError inside is the user's mistake in the setting that `prefix` begins to name."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None


def _own_world(cfg: OwnWorldConfig, tasks: tuple[str, ...], field: str) -> World:
    del field
    if not references.is_reference(cfg.world):
        raise UserError(
            f"env.world is '{cfg.world}'; allowed: path/to/file.py:NAME, a function (tasks) → World"
        )
    world = call_reference("env.world", cfg.world, "tasks", tasks)
    problems = shape_problems(world)
    if problems:
        raise UserError(
            f"env.world: {cfg.world} is no World: {problems[0]}"
            + (f" (and {len(problems) - 1} more: internal-rl check)" if len(problems) > 1 else "")
        )
    return world


def load_reference(field: str, reference: str) -> Any:
    """The user's object; what goes wrong is one line that names the field."""
    try:
        return references.load(reference)
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


def call_reference(field: str, reference: str, parameter: str, *values: Any) -> Any:
    """Call the user's function with these values; what goes wrong is one line that names field and file."""
    function = load_reference(field, reference)
    try:
        if not callable(function):
            raise ValueError(f"'{reference}' cannot be called as ({parameter})")
        try:
            inspect.signature(function).bind(*values)
        except TypeError as error:
            raise ValueError(f"'{reference}' cannot be called as ({parameter}): {error}") from None
        with references.blaming(reference):
            return function(*values)
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


# Demonstrations


def demonstrations(
    config: Config,
    world: World,
    *,
    clean: bool,
    tie_breaking: TieBreaking = "uniform",
) -> Demonstrations | HostDemonstrations:
    """Expert behaviour in `world`: that of pretraining, or clean.

    Raises:
        UserError: there is none, or it does not fit the world.
    """
    found = expert(config, world, clean=clean, tie_breaking=tie_breaking)
    if found is None:
        name = "clean_source" if clean and config.data.clean_source else "source"
        found = _recorded(
            config, getattr(config.data, name), world, packing=config.pretrain.packing
        )
    return found


def expert(
    config: Config, world: World, *, clean: bool, tie_breaking: TieBreaking = "uniform"
) -> Demonstrations | None:
    """Behaviour that can be generated in any task set of the environment; None if there are only recordings."""
    source = _source(config.data, clean)
    if references.is_reference(source):
        return _own_demonstrations(config, source, world)
    if source:
        return None
    if isinstance(world, PinpadWorld):
        packing, epsilon = config.pretrain.packing and not clean, config.pretrain.epsilon
        return PinpadDemonstrations(
            world,
            epsilon=epsilon,
            packing=packing,
            tie_breaking=tie_breaking,
            mean_length=_mean_length(world, epsilon) if packing else 0.0,
        )
    if isinstance(world, TokenWorld):
        return TokenDemonstrations(
            world, config.pretrain.epsilon, one_spelling=tie_breaking == "deterministic"
        )
    raise UserError(
        "data.source is ''; allowed: a folder made by internal-rl data, or path/to/file.py:NAME, since no expert comes "
        "with this world"
    )


def _recorded(config: Config, source: str, world: World, *, packing: bool) -> Any:
    """A folder of recorded episodes; opened, and its checksums compared, once while it stays as it is."""
    try:
        changed = (Path(source) / MANIFEST).stat().st_mtime_ns
    except OSError:
        changed = 0  # opening says what is wrong
    return _opened(source, changed, world, packing, int(config.data.device_gib * 2**30))


@lru_cache(maxsize=8)
def _opened(source: str, changed: int, world: World, packing: bool, device_bytes: int) -> Any:
    del changed
    return open_recorded(source, world, packing=packing, device_bytes=device_bytes)


def _own_demonstrations(config: Config, source: str, world: World) -> Any:
    """What a user's reference gives in `world`: demonstrations, or a sequence of episodes."""
    field = "data.clean_source" if source == config.data.clean_source else "data.source"
    found = load_reference(field, source)
    if callable(found):
        found = call_reference(field, source, "world", world)
    if isinstance(found, (Demonstrations, HostDemonstrations)):
        return found
    if isinstance(found, Indexable):
        try:
            return from_sequence(
                found,
                world.obs_spec,
                world.action_spec,
                world.horizon,
                config.pretrain.packing,
                world.num_goals,
            )
        except UserError as error:
            raise UserError(f"{field}: {source}: {error}") from None
    raise UserError(
        f"{field}: {source} gives a {type(found).__name__}; allowed: Demonstrations (data and rows), or a sequence of "
        "episodes (__len__ and __getitem__)"
    )


_mean_length = lru_cache(maxsize=64)(mean_length)


def _source(cfg: DataConfig, clean: bool) -> str:
    return cfg.clean_source if clean and cfg.clean_source else cfg.source


def discovery_demonstrations(
    config: Config, world: World
) -> tuple[Demonstrations | HostDemonstrations, Demonstrations | None]:
    """D*, and what takes its place in the last `discover.tail_steps` (None: nothing does)."""
    cfg = config.discover
    main = demonstrations(config, world, clean=True, tie_breaking=cfg.tie_breaking)
    if not (cfg.tail_steps and cfg.tail_tie_breaking != cfg.tie_breaking):
        return main, None
    if not isinstance(main, PinpadDemonstrations | TokenDemonstrations):
        return main, None
    return main, expert(config, world, clean=True, tie_breaking=cfg.tail_tie_breaking)


# Networks


def base_network(cfg: BaseModelConfig, world: World) -> SplitNetwork:
    """The base model of a config in a world.

    Raises:
        UserError: its settings are wrong, or it does not fit the world's observations and actions.
    """
    obs, action, max_len = world.obs_spec, world.action_spec, world.horizon + 1
    if isinstance(cfg, OwnModelConfig):
        if not references.is_reference(cfg.name):
            raise UserError(
                f"model.name is '{cfg.name}'; allowed: path/to/file.py:NAME, a function (obs_spec, action_spec, max_len) "
                "→ SplitNetwork"
            )
        network = call_reference(
            "model.name", cfg.name, "obs_spec, action_spec, max_len", obs, action, max_len
        )
        if not isinstance(network, SplitNetwork):
            raise UserError(
                f"model.name: {cfg.name} gives a {type(network).__name__}; allowed: an object with the members of "
                "SplitNetwork (width, depth, init, bind)"
            )
        return network
    if isinstance(cfg, ModelConfig):
        return residual_network(cfg, obs, action, max_len)
    with _blaming("model."):
        return decoder_network(cfg, obs, action, max_len)


def cut(cfg: DiscoverConfig, network: SplitNetwork) -> int:
    """The controlled layer l.

    Raises:
        UserError: the base model has no such layer.
    """
    layer = network.depth // 2 if cfg.controlled_layer == -1 else cfg.controlled_layer
    if not 0 <= layer <= network.depth:
        raise UserError(
            f"discover.controlled_layer is {cfg.controlled_layer}; allowed: 0 to the base model's depth "
            f"({network.depth}), or -1 (half of it)"
        )
    return layer


def models(config: Config, world: World, layer: int | None = None) -> Models:
    """All networks of a config in a world, cut at the config's layer or at another."""
    base = base_network(config.model, world)
    return Models(
        base=base,
        layer=cut(config.discover, base) if layer is None else layer,
        meta=metacontroller_network(config.metacontroller, base.width),
        policy=policy_network(config.reinforce, config.metacontroller.code_dim, base.width),
        code_dim=config.metacontroller.code_dim,
    )


def own_references(config: Config) -> list[str]:
    """The user's objects and folders of demonstrations that a config names."""
    names = {config.env.world, config.model.name}
    own = {name for name in names if references.is_reference(name)}
    return sorted(own | {name for name in (config.data.source, config.data.clean_source) if name})
