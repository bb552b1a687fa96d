"""Training runs of learning-aware agents: configs in, run directories out; seeds are vmapped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from agents.learning_aware import analytic, population, predictive
from agents.learning_aware.predictive import Predictor
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
        lambda key: population.init(config.pool, policy, learner, key),
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
        lambda key: analytic.init(config.agents, key),
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
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunDir:
    """Train two predictive agents in `path`."""
    run, config, seeds = _open(
        "social_predictive", config, path, validate_predictive, seeds, resume, overwrite
    )
    game = make_matrix_game(config.game)
    predictor = make_predictor(config, game)
    return _train(
        run,
        config,
        lambda key: predictive.init(config.agents, game, predictor, key),
        predictive.make_update(config.agents, game, predictor),
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
    symbols = predictive.num_symbols(config.agents, game)
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
    seeds = run.info["num_seeds"]
    if run.stage == "social":
        config = run.load_config(SocialConfig)
        _, policy, learner = parts(config)
        init = lambda key: population.init(config.pool, policy, learner, key)  # noqa: E731
    else:
        config = run.load_config(AnalyticConfig)
        init = lambda key: analytic.init(config.agents, key)  # noqa: E731
    template = jax.eval_shape(lambda: initial(init, config.seed, seeds))
    checkpoints = Checkpoints(run, config.runtime.keep_checkpoints)
    if checkpoints.latest_step() is None:
        raise UserError(f"{run.path}: no checkpoint yet; run the training to its end first")
    _, state = checkpoints.restore_latest(template)
    checkpoints.close()
    return state if seeds > 1 else jax.tree.map(lambda x: x[None], state)


def initial(init: Callable[[jax.Array], Any], seed: int, seeds: int) -> Any:
    """State of one seed, or of several along a leading axis."""
    key = jax.random.key(seed)
    if seeds == 1:
        return jax.jit(init)(key)
    return jax.jit(jax.vmap(init))(jax.random.split(key, seeds))


def _train(run, config, init, update, headline, seeds, resume, progress) -> RunDir:
    loop.run(
        run.stage.replace("_", " "),
        initial(init, config.seed, seeds),
        update,
        total_steps=config.iterations,
        runtime=config.runtime,
        run=run,
        headline=headline,
        seeds_axis=seeds > 1,
        resume=resume,
        progress=progress,
    )
    return run


def _open(
    stage: str,
    config: ConfigT,
    path: Path,
    validate: Callable[[ConfigT], None],
    seeds: int,
    resume: bool,
    overwrite: bool,
) -> tuple[RunDir, ConfigT, int]:
    """Make the run directory, or reopen it with the config it was started with."""
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; allowed: at least 1")
    if resume:
        run = run_dir.open_run(path, stage)
        return run, run.load_config(type(config)), run.info["num_seeds"]
    validate(config)
    run = run_dir.create(path, stage, config, overwrite=overwrite, num_seeds=seeds)
    return run, config, seeds
