"""Training runs of learning-aware agents: configs in, run directories out; seeds are vmapped."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from agents.learning_aware import analytic, population, predictive_phases
from agents.learning_aware.predictive import Predictor, needs_parent, num_symbols
from agents.learning_aware.predictive_phases import PredictiveState
from envs.social.matrix import IteratedMatrixGame
from internal_rl.errors import UserError
from internal_rl.runs import loop, run_dir
from internal_rl.runs.checkpoint import Checkpoints
from internal_rl.runs.run_dir import RunDir
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
from internal_rl.social.own_files import check_unchanged, fingerprints
from internal_rl.social.parents import STAGE as PREDICTIVE
from internal_rl.social.parents import check_parent
from internal_rl.social.predictor import gru_predictor

STAGES = {"social": SocialConfig, "social_analytic": AnalyticConfig}
"""Stages that `evaluate` knows."""
ConfigT = TypeVar("ConfigT", SocialConfig, AnalyticConfig, PredictiveConfig)


def run_social(
    config: SocialConfig,
    path: Path,
    *,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Train a pool of meta agents in `path`."""
    run, config, seeds = _open("social", config, path, validate_social, seeds, resume, overwrite)
    game, policy, learner = parts(config)
    return _train(
        run,
        config,
        initial(lambda key: population.init(config.pool, policy, learner, key), config.seed, seeds),
        population.make_update(config.pool, game, policy, learner),
        "naive/ego_reward" if config.pool.p_naive else "meta/ego_reward",
        seeds,
        resume,
        progress,
    )


def run_analytic(
    config: AnalyticConfig,
    path: Path,
    *,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Train memory-1 agents with exact gradients in `path`."""
    run, config, seeds = _open(
        "social_analytic", config, path, validate_analytic, seeds, resume, overwrite
    )
    return _train(
        run,
        config,
        initial(lambda key: analytic.init(config.agents, key), config.seed, seeds),
        analytic.make_update(config.agents),
        "meta/reward" if config.agents.num_meta > 1 else "naive/ego_reward",
        seeds,
        resume,
        progress,
    )


def run_predictive(
    config: PredictiveConfig,
    path: Path,
    *,
    parent: RunDir | None = None,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Train two predictive agents in `path`.

    Args:
        parent: the finished run whose agents are frozen opponents, or go on; seed s builds on its seed s. With `resume`
            it is the recorded one.
    """

    def validate(config: PredictiveConfig) -> None:
        validate_predictive(config)
        check_parent(config, parent, seeds)
        if parent is not None:
            # A broken parent is reported before anything is made or overwritten.
            load_predictive(parent)

    parents = {} if parent is None else {PREDICTIVE: parent}
    run, config, seeds = _open(
        PREDICTIVE, config, path, validate, seeds, resume, overwrite, parents
    )
    game = make_matrix_game(config.game)
    predictor = make_predictor(config, game)
    inherits = needs_parent(config.agents)
    states = (load_predictive(run.parent(PREDICTIVE)),) if inherits else ()
    return _train(
        run,
        config,
        initial(_predictive_init(config), config.seed, seeds, *states),
        predictive_phases.make_update(config.agents, game, predictor),
        "loss",
        seeds,
        resume,
        progress,
    )


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
    return _restore(run, jax.eval_shape(lambda: initial(init, config.seed, seeds)))


def load_predictive(run: RunDir) -> PredictiveState:
    """Newest checkpoint of a run of predictive agents, with its seed axis [S] in front.

    Raises:
        UserError: no checkpoint yet, a damaged one, or the run that it builds on was moved.
    """
    check_unchanged(run)
    return _restore(run, _predictive_shapes(run))


def initial(init: Callable[..., Any], seed: int, seeds: int, *parents: Any) -> Any:
    """State of one seed, or of several along a leading axis [S].

    Args:
        init: key, parents' states → state.
        parents: states with leading axes of at least S; seed s gets their parts s.
    """
    key = jax.random.key(seed)
    if seeds == 1:
        return jax.jit(init)(key, *(jax.tree.map(lambda x: x[0], p) for p in parents))
    parts = (jax.tree.map(lambda x: x[:seeds], p) for p in parents)
    return jax.jit(jax.vmap(init))(jax.random.split(key, seeds), *parts)


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
    return jax.eval_shape(
        lambda *states: initial(init, config.seed, run.info["num_seeds"], *states), *parents
    )


def _restore(run: RunDir, template: Any) -> Any:
    checkpoints = Checkpoints(run)
    if checkpoints.latest_step() is None:
        raise UserError(f"{run.path}: no checkpoint yet; run the training to its end first")
    _, state = checkpoints.restore_latest(template)
    return _with_seeds(state, run.info["num_seeds"])


def _with_seeds(state: Any, seeds: int) -> Any:
    """A state with its seed axis, which runs of one seed lack."""
    return state if seeds > 1 else jax.tree.map(lambda x: x[None], state)


def _train(run, config, state, update, headline, seeds, resume, progress) -> RunDir:
    loop.run(
        run.stage.replace("_", " "),
        state,
        update,
        total_steps=config.iterations,
        runtime=config.runtime,
        run=run,
        headline=headline,
        check=_not_finite,
        seeds_axis=seeds > 1,
        resume=resume,
        progress=progress,
    )
    return run


def _not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Rewards stay finite when parameters do not."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value).all()]
    return f"{', '.join(bad)} not finite" if bad else None


def _open(
    stage: str,
    config: ConfigT,
    path: Path,
    validate: Callable[[ConfigT], None],
    seeds: int,
    resume: bool,
    overwrite: bool,
    parents: Mapping[str, RunDir] | None = None,
) -> tuple[RunDir, ConfigT, int]:
    """Make the run directory, or reopen it with the config it was started with."""
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; allowed: at least 1")
    if resume:
        run = run_dir.open_run(path, stage)
        check_unchanged(run)
        return run, run.load_config(type(config)), run.info["num_seeds"]
    validate(config)
    run = run_dir.create(
        path,
        stage,
        config,
        overwrite=overwrite,
        parents=parents,
        num_seeds=seeds,
        own_files=fingerprints(config),
    )
    return run, config, seeds
