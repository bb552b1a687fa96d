"""From configs to games, policies and learners, with one clear `UserError` for the first wrong field."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from agents.learning_aware import analytic, naive, population, predictive
from agents.learning_aware.checks import above_zero, at_least
from agents.learning_aware.naive import NaiveLearner
from agents.learning_aware.policies import Policy, random_tables, tabular, tabular_by_episode
from agents.learning_aware.shaping import check_context
from agents.references import blaming, is_reference, load, load_function
from envs.social.cleanup import CleanUp
from envs.social.game import SocialGame, check_game
from envs.social.matrix import (
    GAMES,
    IteratedMatrixGame,
    as_payoffs,
    check_payoffs,
    payoffs_by_name,
)
from internal_rl.errors import UserError, nearest
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.loop import check_steps
from internal_rl.social.config import (
    AnalyticConfig,
    EmbeddedConfig,
    GameConfig,
    NaiveConfig,
    PolicyConfig,
    PredictiveConfig,
    SocialConfig,
)
from internal_rl.social.gru import gru_policy
from internal_rl.social.hawk import hawk_policy

LONGEST_HORIZON = 5
"""Of embedded agents: the tree of joint actions has 4^horizon leaves, each a belief over all universes."""


def make_game(cfg: GameConfig) -> SocialGame:
    """The game of `cfg`. Raises `UserError` for an unknown name or an impossible length."""
    if cfg.name == "cleanup":
        return _checked("game", lambda: CleanUp(episode_length=cfg.episode_length))
    if is_reference(cfg.name):
        return _checked("game.name", lambda: _own_game(cfg))
    if cfg.name not in GAMES:
        allowed = (*GAMES, "cleanup")
        raise UserError(
            f"game.name is '{cfg.name}'; did you mean '{nearest(cfg.name, allowed)}'? allowed: {', '.join(allowed)}, "
            "or file.py:NAME"
        )
    return _checked(
        "game", lambda: IteratedMatrixGame(payoffs_by_name(cfg.name), cfg.episode_length)
    )


def _own_game(cfg: GameConfig) -> SocialGame:
    """A user's game: what its class (or any function) makes of an episode length, or the iterated game of its payoffs."""
    found = load(cfg.name)
    if callable(found):
        make = load_function(cfg.name, episode_length=cfg.episode_length)
        with blaming(cfg.name):
            game = check_game(make(episode_length=cfg.episode_length))
        if game.episode_length != cfg.episode_length:
            raise ValueError(
                f"'{cfg.name}' has episode_length {game.episode_length}; allowed: what it is called with, "
                f"game.episode_length ({cfg.episode_length})"
            )
        return game
    if isinstance(found, SocialGame):
        raise ValueError(
            f"'{cfg.name}' is a game already; allowed: its class, or a function of episode_length that makes it"
        )
    return IteratedMatrixGame(as_payoffs(found), cfg.episode_length)


def make_matrix_game(cfg: GameConfig) -> IteratedMatrixGame:
    """The game of `cfg`. Raises `UserError` if it is no matrix game of two actions."""
    game = make_game(cfg)
    if not isinstance(game, IteratedMatrixGame) or game.num_actions != 2:
        raise UserError(f"game.name is '{cfg.name}'; allowed: matrix games with two actions")
    return game


def make_policy(
    cfg: PolicyConfig, game: SocialGame, inner_episodes: int, chains: int = 0
) -> Policy:
    """The policy of `cfg` for `game`. Raises `UserError` if they do not fit.

    Args:
        chains: B of a co-player that never learns, 0 for everybody else.
    """
    if cfg.kind == "gru":
        for name in ("width", "embed"):
            if getattr(cfg, name) < 1:
                raise UserError(f"policy.{name} is {getattr(cfg, name)}; allowed: at least 1")
        if cfg.memory != "meta_episode":
            raise UserError(f"policy.memory is '{cfg.memory}'; allowed with gru: meta_episode")
        return gru_policy(cfg, game)
    if cfg.kind == "hawk":
        for name in ("width", "mlp_width", "lru_blocks", "depth"):
            if getattr(cfg, name) < 1:
                raise UserError(f"policy.{name} is {getattr(cfg, name)}; allowed: at least 1")
        if cfg.width % cfg.lru_blocks:
            raise UserError(
                f"policy.width is {cfg.width}; allowed: multiples of policy.lru_blocks ({cfg.lru_blocks})"
            )
        _checked("policy", lambda: above_zero(cfg, "init_scale"))
        return hawk_policy(cfg, game)
    if not game.num_observations:
        raise UserError(
            f"policy.kind is '{cfg.kind}'; allowed in a game whose observation is no single integer: hawk, gru"
        )
    if cfg.kind == "random_tables":
        if not chains or game.num_actions != 2:
            raise UserError(
                f"policy.kind is 'random_tables' with {game.num_actions} actions; allowed: of naive co-players with "
                "naive.rule 'frozen', in games with two actions"
            )
        return random_tables(game.num_observations, chains)
    _checked("policy", lambda: at_least(cfg, 0, "noise"))
    sizes = (game.num_observations, game.num_actions)
    start = {"initial_logit": cfg.initial_logit, "noise": cfg.noise}
    if cfg.kind == "tabular":
        return tabular(*sizes, **start, value_scale=1.0 if cfg.critic else 0.0)
    return tabular_by_episode(*sizes, game.episode_length, inner_episodes, **start)


def make_learner(cfg: NaiveConfig, game: SocialGame, chains: int = 1) -> NaiveLearner:
    """The naive learner of `cfg` for B = `chains`. Raises `UserError` for an unknown rule."""
    if cfg.policy.kind == "tabular_by_episode":
        raise UserError(
            "naive.policy.kind is 'tabular_by_episode'; allowed: tabular, random_tables, hawk, gru "
            "(naive agents know no inner episode)"
        )
    policy = make_policy(cfg.policy, game, 1, chains if cfg.rule == "frozen" else 0)
    # The other rule's settings, too: whoever sets them expects an effect.
    _checked("naive.policy_gradient", lambda: naive.check_policy_gradient(cfg.policy_gradient))
    _checked("naive.actor_critic", lambda: naive.check_actor_critic(cfg.actor_critic))
    match cfg.rule:
        case "policy_gradient":
            return naive.policy_gradient(policy, cfg.policy_gradient)
        case "actor_critic":
            return naive.actor_critic(policy, cfg.actor_critic)
        case "frozen":
            return naive.frozen(policy)
    if is_reference(cfg.rule):
        return _checked("naive.rule", lambda: _own_learner(cfg.rule, policy, game, chains))
    allowed = ("policy_gradient", "actor_critic", "frozen")
    raise UserError(
        f"naive.rule is '{cfg.rule}'; did you mean '{nearest(cfg.rule, allowed)}'? allowed: {', '.join(allowed)}, or "
        "file.py:NAME"
    )


def _own_learner(rule: str, policy: Policy, game: SocialGame, chains: int) -> NaiveLearner:
    make = load_function(rule, "policy")
    with blaming(rule):
        return naive.check_learner(make(policy), game, chains)


def validate_social(config: SocialConfig) -> None:
    """Raise `UserError` unless a pool can be trained with `config`."""
    _check_types(config)
    game = make_game(config.game)
    _checked("pool", lambda: population.check_pool(config.pool, game))
    policy = make_policy(config.policy, game, config.pool.inner_episodes)
    _checked("pool", lambda: check_context(policy, game.episode_length, config.pool.inner_episodes))
    make_learner(config.naive, game, config.pool.batch)
    _check_learning(config)
    if config.pool.dynamic_naive and config.naive.policy != config.policy:
        raise UserError(
            "pool.dynamic_naive is True with two kinds of policies; allowed: naive.policy equal to policy"
        )
    check_steps("iterations", config.iterations, config.runtime)


def _check_learning(config: SocialConfig) -> None:
    """Policies that the pool's way of learning cannot train."""
    policy, pool = config.policy, config.pool
    critic = policy.kind in ("hawk", "gru") or (policy.kind == "tabular" and policy.critic)
    if pool.objective.algorithm != "reinforce" and not critic:
        raise UserError(
            f"policy.kind is '{policy.kind}' without a critic and pool.objective.algorithm is "
            f"'{pool.objective.algorithm}'; allowed: policy.critic True (kind tabular), kind hawk or gru, or reinforce"
        )
    # Its imagined games are single inner episodes from the first step, which is all of the policy that they train.
    one_episode = policy.kind == "tabular" or (
        policy.kind == "hawk" and policy.memory != "meta_episode"
    )
    if pool.estimator == population.LOLA and not one_episode:
        raise UserError(
            f"policy.kind is '{policy.kind}', which plays on over inner episodes, with pool.estimator {population.LOLA}; "
            "allowed: tabular, or hawk with policy.memory inner_episode or step"
        )


def validate_analytic(config: AnalyticConfig) -> None:
    """Raise `UserError` unless the analytical game can be run with `config`."""
    _check_types(config)
    _checked("agents", lambda: analytic.check(config.agents))
    check_steps("iterations", config.iterations, config.runtime)


def validate_embedded(config: EmbeddedConfig) -> None:
    """Raise `UserError` unless the Bayesian agents can play with `config`."""
    _check_types(config)
    two_actions = [name for name, payoffs in GAMES.items() if len(payoffs[0]) == 2]
    if config.game not in two_actions:
        own = is_reference(config.game) and not callable(
            _checked("game", lambda: load(config.game))
        )
        shape = np.shape(embedded_payoffs(config)) if own else ()
        if shape != (2, 2, 2):
            has = f", of shape {list(shape)}" if shape else ""
            raise UserError(
                f"game is '{config.game}'{has}; allowed: {', '.join(two_actions)}, or file.py:NAME of payoffs [2, 2, 2]"
            )
    if not config.alphas:
        raise UserError("alphas is empty; allowed: at least one number in [0, 1]")
    for alpha in config.alphas:
        if not 0 <= alpha <= 1 or math.isnan(alpha):
            raise UserError(f"alphas holds {alpha}; allowed: numbers in [0, 1]")
    if not 1 <= config.rounds <= 60:
        raise UserError(f"rounds is {config.rounds}; allowed: 1 to 60")
    if not 0 < config.tremble < 0.5:
        # Without trembles some history leaves no policy that could take one of the actions.
        raise UserError(f"tremble is {config.tremble}; allowed: above 0 and below 0.5")
    if not 1 <= config.horizon <= LONGEST_HORIZON:
        raise UserError(f"horizon is {config.horizon}; allowed: 1 to {LONGEST_HORIZON}")
    if not 1 <= config.depth <= config.horizon:
        raise UserError(f"depth is {config.depth}; allowed: 1 to the horizon, {config.horizon}")
    if not 0 <= config.discount < 1 or (config.discount > 0) != (config.horizon > 1):
        allowed = "above 0 and below 1" if config.horizon > 1 else "0"
        raise UserError(
            f"discount is {config.discount} with horizon {config.horizon}; allowed: {allowed}"
        )


def embedded_payoffs(config: EmbeddedConfig) -> Float[np.ndarray, "2 A A"]:
    """Payoffs of both players. Raises `UserError` for an unknown game."""
    if is_reference(config.game):
        return _checked("game", lambda: check_payoffs(load(config.game)))
    return check_payoffs(payoffs_by_name(config.game))


def validate_predictive(config: PredictiveConfig) -> None:
    """Raise `UserError` unless predictive agents can be trained with `config`."""
    _check_types(config)
    make_matrix_game(config.game)
    _checked("agents", lambda: predictive.check(config.agents, make_matrix_game(config.game)))
    for name in ("embed", "hidden"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}; allowed: at least 1")
    if config.iterations > config.agents.phases:
        raise UserError(
            f"iterations is {config.iterations}; allowed: at most agents.phases ({config.agents.phases})"
        )
    check_steps("iterations", config.iterations, config.runtime)


def _check_types(config) -> None:
    _check_finite(config, "")
    # The strict reader checks types and choices; it also sees configs made in Python.
    config_from_json(config_to_json(config), type(config), source="config")
    seed = getattr(config, "seed", 0)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; allowed: 0 to 4294967295 (32 bits)")


def _check_finite(value, path: str) -> None:
    """No setting is infinite or NaN; JSON could not hold it, which would show only after the run directory is made."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_finite(
                getattr(value, field.name), f"{path}.{field.name}" if path else field.name
            )
    elif isinstance(value, tuple):
        for item in value:
            _check_finite(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path} is {value}; allowed: finite numbers")


def _checked(prefix: str, make):
    try:
        return make()
    except ValueError as error:
        raise UserError(f"{prefix}: {error}") from None
