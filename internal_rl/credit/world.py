"""What a credit config names: environment, its tables, and whether they fit together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from agents.credit import METHODS, CreditConfig, World, WorldSpec
from agents.credit.config import HINDSIGHT_METHODS, RETURN_METHODS, check_credit
from agents.credit.train import check_train
from envs.credit import FiniteMDP, Interleaving, KeyToDoor, Tree, enumerate_mdp, exact
from envs.credit.interleaving import InterleavingParams
from envs.credit.mdp import check_horizon, unique_rewards
from envs.credit.tree import seed_offset_of
from internal_rl.credit.config import CreditRunConfig, WorldConfig
from internal_rl.errors import UserError
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.loop import check_steps

# Settings that all learned models of a shadow run take from `credit`.
_SHARED = (
    "features",
    "hindsight_width",
    "value_width",
    "hindsight_loss",
    "clip_ratio",
    "q_bootstrap",
)


@dataclass(frozen=True)
class BuiltWorld:
    """An environment with its parameters; the tables are made when first asked for."""

    world: World
    spec: WorldSpec

    @cached_property
    def mdp(self) -> FiniteMDP:
        """Exact tables in float64. Raises ValueError where there are none."""
        mdp = enumerate_mdp(self.world.env, self.world.params)
        check_horizon(mdp, self.world.horizon)
        return mdp


def build_world(config: WorldConfig) -> BuiltWorld:
    """The environment of a config. Raises UserError for what it refuses."""
    try:
        return _build(config)
    except ValueError as error:
        raise UserError(f"world.{config.kind}.{error}") from None


def _build(config: WorldConfig) -> BuiltWorld:
    after: Any = None
    if config.kind == "key_to_door":
        c = config.key_to_door
        env = KeyToDoor(
            length=c.length,
            num_keys=c.num_keys,
            distractor_prob=c.distractor_prob,
            layout_seed=c.layout_seed,
            treasure_at_door=c.treasure_at_door,
            ignore_door=c.ignore_door,
            random_distractors=c.random_distractors,
        )
        params, horizon = env.make_params(c.distractor, c.treasure), c.length
        values = env.reward_values(params)
        if c.treasure_after:
            # Arrays of one size, so that one program serves both halves of the run.
            pad = lambda own: (*own, *([own[-1]] * (size - len(own))))  # noqa: E731
            size = max(len(c.treasure), len(c.treasure_after))
            params = env.make_params(c.distractor, pad(c.treasure))
            after = env.make_params(c.distractor, pad(c.treasure_after))
            values = unique_rewards([*values, *env.reward_values(after)])
    elif config.kind == "interleaving":
        c = config.interleaving
        if c.horizon < 1:
            raise ValueError(f"horizon={c.horizon}: allowed is 1 or more")
        if not 0 <= c.death <= 1:
            raise ValueError(f"death={c.death}: allowed is 0 to 1")
        env = Interleaving(c.contexts, c.max_open, c.objects, c.split_seed)
        params, horizon = InterleavingParams(c.horizon, c.death), c.horizon
        values = env.reward_values()
    else:
        c = config.tree
        env = Tree(c.depth, c.actions, c.overlap, c.num_rewards)
        env = Tree(c.depth, c.actions, c.overlap, c.num_rewards, seed_offset_of(env, c.seed))
        params, horizon = env.default_params, c.depth
        values = unique_rewards(env.reward_values())
    return BuiltWorld(
        world=World(env=env, params=params, horizon=horizon, params_after=after),
        spec=WorldSpec(
            obs_dim=env.observation_space(params).shape[0],
            num_actions=env.num_actions,
            reward_values=values,
        ),
    )


def validate(config: CreditRunConfig) -> None:
    """Raise UserError naming field, value and what is allowed, before anything is compiled."""
    config_from_json(config_to_json(config), CreditRunConfig, source="config")
    _check_finite(config, "")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed is {config.seed}; allowed: 0 to 4294967295 (32 bits)")
    try:
        check_credit(config.credit)
        check_train(config.train)
    except ValueError as error:
        raise UserError(str(error)) from None
    for name in (*config.shadow.methods, *config.shadow.exact_methods):
        if name not in METHODS:
            raise UserError(f"shadow has method {name!r}; allowed: {', '.join(METHODS)}")
    for size in config.shadow.perturbations:
        if size < 0:
            raise UserError(f"shadow.perturbations has {size}; allowed: at least 0")
    check_steps("train.batches", config.train.batches, config.runtime)
    switches = bool(config.world.key_to_door.treasure_after) and config.world.kind == "key_to_door"
    if switches != (config.train.switch_at > 0):
        raise UserError(
            f"train.switch_at is {config.train.switch_at}; allowed: above 0 with "
            "world.key_to_door.treasure_after, and only then"
        )
    built = build_world(config.world)
    if learns_features(config.credit):
        _check_burn_in(config)
    if config.credit.model == "exact":
        if switches:
            raise UserError("credit.model is 'exact'; allowed: learned where the rewards switch")
        check_lattice("credit.method", [config.credit.method], tables(built))


def validate_shadow(config: CreditRunConfig) -> None:
    """What a shadow run needs besides `validate`: gradients are measured against the tables of one world."""
    if config.train.switch_at > 0:
        raise UserError(
            f"train.switch_at is {config.train.switch_at}; allowed in a shadow run: 0, since its exact "
            "gradients are those of one world"
        )
    for name, credit in shadow_credits(config).items():
        try:
            check_credit(credit)
        except ValueError as error:
            raise UserError(f"shadow.methods has {name!r}, and {error}") from None
    if shadow_features(config):
        _check_burn_in(config)
    mdp = tables(build_world(config.world))
    check_lattice("credit.method", [config.credit.method], mdp)
    check_lattice("shadow", (*config.shadow.methods, *config.shadow.exact_methods), mdp)


def check_lattice(name: str, methods: Sequence[str], mdp: FiniteMDP) -> None:
    """Raise UserError if a method of the field `name` needs the distribution of returns, for its exact
    model or its exact bias, in a world that has none."""
    for method in methods:
        if method not in RETURN_METHODS:
            continue
        try:
            exact.return_support(mdp)
        except ValueError as error:
            raise UserError(
                f"{name} has {method!r}; allowed: methods without exact returns, since {error}"
            ) from None


def learns_features(credit: CreditConfig) -> bool:
    """Whether a model needs features that are trained before it."""
    return credit.method == "cocoa_feature" and credit.model == "learned"


def shadow_credits(config: CreditRunConfig) -> dict[str, CreditConfig]:
    """Settings of a shadow run's learned models by method: their own tuned rates and masks; networks,
    losses and features are the config's."""
    from configs.credit import shadow_credit

    shared = {name: getattr(config.credit, name) for name in _SHARED}
    found = {}
    for method in config.shadow.methods:
        own = shadow_credit(method, config.world.kind)
        found[method] = replace(own, **shared)
        # Those that learn no coefficients have no loss for them.
        if method not in HINDSIGHT_METHODS:
            found[method] = replace(found[method], hindsight_loss=own.hindsight_loss)
    return found


def shadow_features(config: CreditRunConfig) -> tuple[str, ...]:
    """Names of a shadow run's models that need trained features."""
    acting = ("main",) if learns_features(config.credit) else ()
    return acting + tuple(name for name in config.shadow.methods if name == "cocoa_feature")


def _check_burn_in(config: CreditRunConfig) -> None:
    burn_in, batches = config.credit.features.burn_in, config.train.batches
    if burn_in >= batches:
        raise UserError(
            f"credit.features.burn_in is {burn_in}; allowed: below train.batches ({batches}), since "
            "nothing is learned before"
        )


def tables(built: BuiltWorld) -> FiniteMDP:
    """Exact tables, or a UserError where the environment has none."""
    try:
        return built.mdp
    except ValueError as error:
        raise UserError(f"no exact tables: {error}") from None


def _check_finite(config: Any, prefix: str) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if is_dataclass(item):
                _check_finite(item, f"{prefix}{f.name}.")
            elif isinstance(item, float) and not math.isfinite(item):
                raise UserError(f"{prefix}{f.name} is {item}; allowed: finite numbers")
