"""Training runs of learning-aware agents: configs in, run directories out; seeds are vmapped."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from agents.learning_aware import analytic, population, predictive_phases
from agents.learning_aware.predictive import Predictor, needs_parent, num_symbols
from agents.learning_aware.predictive_phases import PredictiveState
from agents.references import is_reference
from envs.social.matrix import IteratedMatrixGame
from internal_rl.errors import UserError
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.config_io import leaves
from internal_rl.runs.own_files import check_unchanged
from internal_rl.runs.run_dir import RunDir
from internal_rl.runs.train import Job, Program, shapes, train
from internal_rl.social.build import (
    make_game,
    make_learner,
    make_matrix_game,
    make_policy,
    validate_analytic,
    validate_predictive,
    validate_social,
)
from internal_rl.social.config import AnalyticConfig, PredictiveConfig, SocialConfig
from internal_rl.social.parents import STAGE as PREDICTIVE
from internal_rl.social.parents import check_parent
from internal_rl.social.predictor import gru_predictor

STAGES = {"social": SocialConfig, "social_analytic": AnalyticConfig}
"""Stages that `evaluate` knows."""
OWN_FIELDS = ("game.name", "naive.rule", "pool.estimator")
"""Where configs name objects of the user's."""


def run_social(config: SocialConfig, path: Path, **flags: Any) -> RunDir:
    """Train a pool of meta agents in `path`. Flags: `runs.train.train`."""

    def program(config: SocialConfig, run: RunDir, seeds: int) -> Program:
        game, policy, learner = parts(config)
        return Program(
            init=lambda key: population.init(config.pool, policy, learner, key),
            update=population.make_update(config.pool, game, policy, learner),
            total_steps=config.iterations,
            headline="naive/ego_reward" if config.pool.p_naive else "meta/ego_reward",
            title="social",
            check=_not_finite,
        )

    return train(Job("social", config, program, validate_social, own_references), path, **flags)


def run_analytic(config: AnalyticConfig, path: Path, **flags: Any) -> RunDir:
    """Train memory-1 agents with exact gradients in `path`. Flags: `runs.train.train`."""

    def program(config: AnalyticConfig, run: RunDir, seeds: int) -> Program:
        return Program(
            init=lambda key: analytic.init(config.agents, key),
            update=analytic.make_update(config.agents),
            total_steps=config.iterations,
            headline="meta/reward" if config.agents.num_meta > 1 else "naive/ego_reward",
            title="social analytic",
            check=_not_finite,
        )

    job = Job("social_analytic", config, program, validate_analytic, own_references)
    return train(job, path, **flags)


def run_predictive(
    config: PredictiveConfig, path: Path, *, parent: RunDir | None = None, **flags: Any
) -> RunDir:
    """Train two predictive agents in `path`. Flags: `runs.train.train`.

    Args:
        parent: the finished run whose agents are frozen opponents, or go on; seed s builds on its seed s. With `resume`
            it is the recorded one.
    """

    def check(config: PredictiveConfig) -> None:
        validate_predictive(config)
        check_parent(config, parent, flags.get("seeds", 1))
        if parent is not None:
            # A broken parent is reported before anything is made or overwritten.
            load_predictive(parent)

    def program(config: PredictiveConfig, run: RunDir, seeds: int) -> Program:
        game = make_matrix_game(config.game)
        inherits = needs_parent(config.agents)
        return Program(
            init=_predictive_init(config),
            start=(load_predictive(run.parent(PREDICTIVE)),) if inherits else (),
            update=predictive_phases.make_update(config.agents, game, make_predictor(config, game)),
            total_steps=config.iterations,
            headline="loss",
            title="social predictive",
            check=_not_finite,
        )

    job = Job(
        PREDICTIVE,
        config,
        program,
        check,
        own_references,
        parents={} if parent is None else {PREDICTIVE: parent},
    )
    return train(job, path, **flags)


def parts(config: SocialConfig):
    """(game, policy of the meta agents, naive learner) of a config."""
    game = make_game(config.game)
    policy = make_policy(config.policy, game, config.pool.inner_episodes)
    return game, policy, make_learner(config.naive, game, config.pool.batch)


def make_predictor(config: PredictiveConfig, game: IteratedMatrixGame) -> Predictor:
    """The sequence model of a config."""
    symbols = num_symbols(config.agents, game)
    sizes = (config.embed, config.hidden)
    return gru_predictor(symbols, game.num_actions, *sizes, config.gru_step)


def load_state(run: RunDir) -> population.PoolState | analytic.AnalyticState:
    """Newest checkpoint of a run, with its seed axis [S] in front (of size 1 if the run has one seed).

    Raises:
        UserError: another stage, no checkpoint yet, or a damaged one.
    """
    if run.stage not in STAGES:
        raise UserError(
            f"{run.path} is a run of stage '{run.stage}'; expected stage 'social' or 'social_analytic'"
        )
    check_unchanged(run)
    seeds = run.info["num_seeds"]
    if run.stage == "social":
        config = run.load_config(SocialConfig)
        _, policy, learner = parts(config)
        init = lambda key: population.init(config.pool, policy, learner, key)  # noqa: E731
    else:
        config = run.load_config(AnalyticConfig)
        init = lambda key: analytic.init(config.agents, key)  # noqa: E731
    return _restore(run, shapes(init, config.seed, seeds))


def load_predictive(run: RunDir) -> PredictiveState:
    """Newest checkpoint of a run of predictive agents, with its seed axis [S] in front.

    Raises:
        UserError: no checkpoint yet, a damaged one, or the run that it builds on was moved.
    """
    check_unchanged(run)
    return _restore(run, _predictive_shapes(run))


def own_references(config: Any) -> list[str]:
    """The user's objects that a config names."""
    named = (value for field, value in leaves(config) if field in OWN_FIELDS)
    return sorted({name for value in named for name in value.split(",") if is_reference(name)})


def _predictive_init(config: PredictiveConfig) -> Callable[..., PredictiveState]:
    game = make_matrix_game(config.game)
    predictor = make_predictor(config, game)
    return lambda key, *parent: predictive_phases.init(config.agents, game, predictor, key, *parent)


def _predictive_shapes(run: RunDir) -> PredictiveState:
    """Shapes of a run's state; those of a memory depend on the runs that it builds on."""
    config = run.load_config(PredictiveConfig)
    init, parents = _predictive_init(config), ()
    if needs_parent(config.agents):
        parent = run.parent(PREDICTIVE)
        seeds = parent.info["num_seeds"]
        parents = (jax.eval_shape(lambda s: _with_seeds(s, seeds), _predictive_shapes(parent)),)
    return shapes(init, config.seed, run.info["num_seeds"], *parents)


def _restore(run: RunDir, template: Any) -> Any:
    checkpoints = Checkpoints(run)
    if checkpoints.latest_step() is None:
        raise UserError(f"{run.path}: no checkpoint yet; run the training to its end first")
    _, state = checkpoints.restore_latest(template)
    return _with_seeds(state, run.info["num_seeds"])


def _with_seeds(state: Any, seeds: int) -> Any:
    """A state with its seed axis, which runs of one seed lack."""
    return state if seeds > 1 else jax.tree.map(lambda x: x[None], state)


def _not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Rewards stay finite when parameters do not."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value).all()]
    return f"{', '.join(bad)} not finite" if bad else None
