"""What trained agents do: reward per inner episode, cooperation per state, fresh naive learners; figures with intervals.

Letters: S seeds, P meta agents, K meta-episodes, B chains, M inner episodes.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.learning_aware import analytic
from agents.learning_aware.population import PoolState
from agents.learning_aware.shaping import MetaEpisode, against_meta, against_naive
from envs.social.analytic import STATES, extortion_fit
from internal_rl.errors import UserError
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.plots import learning_curves
from internal_rl.runs.run_dir import RunDir
from internal_rl.runs.statistics import iqm, median_and_quartiles, stratified_bootstrap_ci
from internal_rl.social.config import AnalyticConfig, SocialConfig
from internal_rl.social.film import film
from internal_rl.social.pipeline import load_state, parts


def evaluate_run(
    run: RunDir, *, episodes: int = 8, naive_updates: int = 400, seed: int = 0
) -> dict[str, Any]:
    """Numbers of a trained run, as JSON: summaries over seeds and the seeds' own values.

    Raises:
        UserError: wrong stage, no checkpoint, or counts below 1.
    """
    for name, value in (("episodes", episodes), ("naive_updates", naive_updates)):
        if value < 1:
            raise UserError(f"{name} is {value}; allowed: at least 1")
    state = load_state(run)
    key = jax.random.key(seed)
    if isinstance(state, PoolState):
        return _evaluate_pool(run.load_config(SocialConfig), state, key, episodes)
    config = run.load_config(AnalyticConfig)
    return _evaluate_analytic(config, state.params, key, episodes, naive_updates)


def draw_run(run: RunDir, result: dict[str, Any], folder: Path) -> list[Path]:
    """Learning curves of a run; for sampled games reward per inner episode, for CleanUp-lite a GIF. Returns the files."""
    metrics = read_metrics(run)
    names = {
        "meta/ego_reward": "metas against each other",
        "meta/reward": "metas against each other",
        "naive/ego_reward": "meta against naive",
        "naive/co_reward": "naive against meta",
    }
    shown = {label: metrics[name] for name, label in names.items() if name in metrics}
    steps = np.asarray(metrics["step"])
    curves = {label: (steps, _seeds_first(values)) for label, values in shown.items()}
    draw = partial(learning_curves, ylabel="reward per step", scale="linear", band="quartiles")
    title = result["config"]
    paths = [draw(folder / "learning.png", curves, xlabel="meta updates", title=title)]
    who_is = {
        ("naive", "ego"): "meta agent, against naive learners",
        ("naive", "co"): "naive learner, against the meta agent",
        ("meta", "ego"): "meta agent, against another",
        ("meta", "co"): "the other meta agent",
    }
    inner = {
        who_is[kind, who]: (np.arange(1, np.shape(values)[1] + 1), np.asarray(values))
        for kind, table in result.get("by_inner_episode", {}).items()
        for who, values in table.items()
    }
    if inner:
        label = "inner episode (a naive learner updates after each)"
        paths.append(draw(folder / "inner_episodes.png", inner, xlabel=label, title=title))
    if run.stage == "social" and run.load_config(SocialConfig).game.name == "cleanup":
        paths.append(film(run, folder / "episode.gif"))
    return paths


def summary(values: Any) -> dict[str, Any]:
    """Median, quartiles, IQM with 95 % bootstrap interval over seeds, and the seeds themselves."""
    values = np.asarray(values, float)
    middle, low, high = (float(x[0]) for x in median_and_quartiles(values[:, None]))
    result: dict[str, Any] = {
        "median": middle,
        "quartiles": [low, high],
        "iqm": float(iqm(values)),
        "seeds": [round(float(v), 4) for v in values],
    }
    if values.size > 1:
        result["ci95"] = list(stratified_bootstrap_ci(values))
    return result


def _evaluate_pool(
    config: SocialConfig, state: PoolState, key: jax.Array, episodes: int
) -> dict[str, Any]:
    game, policy, learner = parts(config)
    pool, steps = config.pool, game.episode_length
    sizes = {"inner_episodes": pool.inner_episodes, "batch": pool.batch}

    def naive(key, params, starts):
        size = jax.tree.leaves(starts)[0].shape[0]
        chosen = jax.tree.map(lambda x: x[jnp.arange(episodes) % size], starts)
        one = lambda k, start: against_naive(k, game, policy, params, learner, start, **sizes)[0]  # noqa: E731
        return jax.vmap(one)(jax.random.split(key, episodes), chosen)

    def meta(key, i, all_params):
        own = jax.tree.map(lambda x: x[i], all_params)
        others = (i + 1 + jnp.arange(episodes) % (pool.num_meta - 1)) % pool.num_meta
        partners = jax.tree.map(lambda x: x[others], all_params)
        one = lambda k, other: against_meta(k, game, policy, own, policy, other, **sizes)  # noqa: E731
        return jax.vmap(one)(jax.random.split(key, episodes), partners)

    def seed(key, state: PoolState):
        keys = jax.random.split(key, (2, pool.num_meta))
        tables = {}
        if pool.p_naive:
            starts = state.params if pool.dynamic_naive else state.naive
            if pool.fresh_naive:
                fresh = jax.random.split(jax.random.fold_in(key, 0), episodes)
                starts = jax.vmap(learner.policy.init)(fresh)
            tables["naive"] = jax.vmap(naive, in_axes=(0, 0, None))(keys[0], state.params, starts)
        if pool.p_meta:
            agents = jnp.arange(pool.num_meta)
            tables["meta"] = jax.vmap(meta, in_axes=(0, 0, None))(keys[1], agents, state.params)
        return {kind: _numbers(table, steps, game) for kind, table in tables.items()}

    count = state.step.shape[0]
    numbers = jax.device_get(jax.jit(jax.vmap(seed))(jax.random.split(key, count), state))
    result: dict[str, Any] = {"config": config.name, "estimator": pool.estimator, "seeds": count}
    result["reward"] = {
        kind: {who: summary(table[f"{who}_reward"].mean(-1)) for who in ("ego", "co")}
        for kind, table in numbers.items()
    }
    result["by_inner_episode"] = {
        kind: {who: np.round(table[f"{who}_reward"], 4).tolist() for who in ("ego", "co")}
        for kind, table in numbers.items()
    }
    if game.num_observations:
        result["cooperation_by_observation"] = {
            kind: np.round(table["cooperation"], 4).tolist() for kind, table in numbers.items()
        }
    return result


def _numbers(episodes: MetaEpisode, steps: int, game: Any) -> dict[str, jax.Array]:
    """Rewards by inner episode [M]; P(action 0) by observation, NaN-free (−1 where never seen) [O]."""

    def by_inner(reward: jax.Array) -> jax.Array:
        return reward.reshape(*reward.shape[:-1], -1, steps).mean((0, 1, 2, 4))  # P, K, B, T

    result = {"ego_reward": by_inner(episodes.reward), "co_reward": by_inner(episodes.co_reward)}
    if game.num_observations:
        seen = jax.nn.one_hot(episodes.obs, game.num_observations)
        axes = tuple(range(seen.ndim - 1))
        chosen = (episodes.action == 0).astype(jnp.float32)[..., None]
        total = seen.sum(axes)
        rate = (seen * chosen).sum(axes) / jnp.maximum(total, 1.0)
        result["cooperation"] = jnp.where(total > 0, rate, -1.0)
    return result


def _evaluate_analytic(
    config: AnalyticConfig, params: jax.Array, key: jax.Array, starts: int, updates: int
) -> dict[str, Any]:
    """Mutual reward, cooperation per state, and what fresh naive learners end with against the first agent [S, P, 5]."""
    cfg = config.agents

    def fresh(key, ego):
        first = analytic.naive_start(key, cfg, starts)
        own, theirs = jax.vmap(lambda s: analytic.learning_curve(ego, s, cfg, updates))(first)
        return own[:, -1].mean(), theirs[:, -1].mean()

    keys = jax.random.split(key, params.shape[0])
    own, theirs = jax.jit(jax.vmap(fresh))(keys, params[:, 0])
    chi, slope, error = jax.jit(jax.vmap(extortion_fit))(params[:, 0])
    cooperation = np.asarray(jax.nn.sigmoid(params[:, 0]))  # [S, 5]
    result: dict[str, Any] = {
        "config": config.name,
        "seeds": params.shape[0],
        "fresh_naive": {"updates": updates, "ego": summary(own), "co": summary(theirs)},
        "cooperation": {s: summary(cooperation[:, i]) for i, s in enumerate(STATES)},
        "zero_determinant_fit": {
            "extortion": summary(chi),
            "slope": summary(slope),
            "mean_squared_error": summary(error),
        },
    }
    if cfg.num_meta > 1:
        mutual = jax.jit(jax.vmap(lambda p: analytic.mutual_reward(p, cfg)))(params)
        result["mutual_reward"] = summary(mutual)
        # Nine tenths of the way from mutual defection to mutual cooperation, per step.
        best, _, _, worst = cfg.payoffs
        per_step = np.asarray(mutual) * (1.0 if cfg.normalised else 1.0 - cfg.discount)
        result["cooperating_seeds"] = int((per_step >= worst + 0.9 * (best - worst)).sum())
    return result


def _seeds_first(values: Any) -> np.ndarray:
    """[steps, S] or [steps] → [S, steps]."""
    array = np.asarray(values, float)
    return array[None] if array.ndim == 1 else array.T
