"""What lies behind COALA's figures (arXiv 2410.18636): extortion as such, parts of the gradient, rivals."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from agents.learning_aware import analytic, population
from agents.learning_aware.analytic import learning_curve
from agents.learning_aware.gradient_split import SplitNorms, split_norms
from configs import social as presets
from envs.social.analytic import extortion_fit
from internal_rl.errors import UserError
from internal_rl.social.config import AnalyticConfig, SocialConfig
from internal_rl.social.evaluate import summary
from internal_rl.social.pipeline import load_state, parts
from reproductions.social_figures import (
    BAND,
    ESTIMATORS,
    LABELS,
    RUNS,
    analytic_run,
    column,
    draw,
    ending,
    origin,
    trained,
    write,
)

POOL_METRICS = ("meta/ego_reward", "naive/ego_reward", "naive/co_reward")
PAPER_RIVALS = {"coala": (0.850, 0.037), "m_fos": (0.853, 0.017)}
"""App. H.3: reward per step and its standard deviation."""


def fig4_length(
    preset: str = "coala-fig4a-20",
    rates: tuple[float, ...] = (5.0, 20.0),
    updates: int = 6000,
    points: int = 12,
    naive_updates: int = 400,
    seeds: int = 20,
    output: Path = Path("docs/results/coala-fig4-length"),
) -> None:
    """Fig. 4B by length of training: with many look-aheads extortion comes, and goes again if learners are slow.

    Args:
        preset: of `social analytic`, a LOLA rule.
        rates: η of the imagined and of the fresh naive learner.
        updates: of the meta agents.
        points: measurements besides that of the untrained policies.
        naive_updates: of the fresh learner, before it is measured.
        seeds: trained at once.
        output: path of the PNG and the JSON, without suffix.
    """
    if points < 1 or updates % points:
        raise UserError(f"points is {points}; allowed: divisors of updates ({updates})")
    base = presets.get(preset, AnalyticConfig).agents
    steps = np.arange(points + 1) * (updates // points)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows: dict[str, Any] = {"updates": steps.tolist()}
    for i, rate in enumerate(rates):
        agents = replace(base, naive_rate=rate)
        mutual, own, theirs = _frozen_along(agents, updates, points, naive_updates, seeds)
        draw(left, steps, mutual, f"C{i}", f"η = {rate:g}")
        draw(right, steps, own, f"C{i}", f"policy, η = {rate:g}")
        draw(right, steps, theirs, f"C{i}", f"fresh naive learner, η = {rate:g}", "--")
        table = {"mutual": mutual, "policy": own, "fresh naive learner": theirs}
        rows[f"rate {rate:g}"] = {
            name: {str(s): summary(v) for s, v in zip(steps, values.T, strict=True)}
            for name, values in table.items()
        }
    left.set(xlabel="meta updates", ylabel="reward per step", title="against each other")
    right.set(
        xlabel="meta updates before freezing",
        ylabel="reward per step",
        title=f"frozen, after {naive_updates} updates of a fresh naive learner",
    )
    figure.suptitle(f"LOLA-DiCE, {base.look_aheads} look-aheads, by length of training")
    write(figure, output, rows, BAND)


def fig8(
    seeds: int = 20,
    random_policies: int = 1000,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-fig8"),
) -> None:
    """Fig. 8: zero-determinant extortion explains learned shapers far better than random policies.

    Args:
        seeds: of fig3's shaping run.
        random_policies: memory-1 policies with P(C) ~ U(0, 1) in every state.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    run = analytic_run("coala-fig3a", seeds, runs)
    learned = load_state(run).params[:, 0]
    random = jax.random.logistic(jax.random.key(1), (random_policies, 5))  # σ of it is uniform
    rows: dict[str, Any] = {"run": origin(run)}
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.subplots()
    errors: list[np.ndarray] = []
    for i, (name, policies) in enumerate((("learned", learned), ("random", random))):
        chi, slope, error = (np.asarray(x) for x in jax.vmap(extortion_fit)(policies))
        found = {"mean squared error": error, "extortion": chi, "slope": slope}
        rows[name] = {what: summary(values) for what, values in found.items()}
        if name == "random":
            for row in rows[name].values():
                del row["seeds"]
        label = f"{len(error)} {name} policies"
        share = np.arange(1, len(error) + 1) / len(error)
        axes.step(np.sort(error), share, where="post", color=f"C{i}", label=label)
        errors.append(error)
    axes.set(
        xscale="log",
        xlabel="mean squared error of P(C) to the nearest zero-determinant strategy",
        ylabel="share of policies at or below",
        title="How well zero-determinant extortion describes a policy",
    )
    worst = errors[0].max()
    rows["share of random ones that fit as well as the worst learned one"] = float(
        np.mean(errors[1] <= worst)
    )
    write(figure, output, rows)


def fig12(
    preset: str = "ipd-shaping-tabular",
    estimators: tuple[str, ...] = ESTIMATORS,
    points: int = 6,
    meta_episodes: int = 512,
    seeds: int = 5,
    output: Path = Path("docs/results/coala-fig12"),
) -> None:
    """Fig. 12: later inner episodes' share of the gradient is balanced with COALA-PG, tiny with the others.

    Every estimator trains as in Fig. 5A, and is measured on its own policies. Norms are without critic and without their
    sampling noise; a line has a gap where noise leaves nothing of them. Dotted: the other estimators on COALA's policies.

    Args:
        preset: of `social train`, against naive learners only.
        estimators: weights on the scores against naive learners.
        points: measurements besides that of the untrained policy.
        meta_episodes: K of a measurement, in multiples of 64; the paper has 2048.
        seeds: trained at once.
        output: path of the PNG and the JSON, without suffix.
    """
    config = presets.get(preset, SocialConfig)
    if points < 1 or config.iterations % points:
        raise UserError(
            f"points is {points}; allowed: divisors of iterations ({config.iterations})"
        )
    if meta_episodes < 128 or meta_episodes % 64:
        raise UserError(f"meta_episodes is {meta_episodes}; allowed: multiples of 64 from 128 on")
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    rows: dict[str, Any] = {}
    steps = np.arange(points + 1) * (config.iterations // points)
    for i, name in enumerate(estimators):
        own = replace(config, pool=replace(config.pool, estimator=name))
        norms = _split_along(own, estimators, points, meta_episodes, seeds)
        for j, measured in enumerate(estimators):
            ratio = np.asarray(norms.log_ratio)[:, :, j].T  # [S, points + 1]
            if j == i:
                draw(axes, steps, ratio, f"C{i}", LABELS.get(name, name))
            elif name == "coala":
                axes.plot(steps, np.nanmedian(ratio, axis=0), ":", color=f"C{j}")
            rows[f"{measured}, on policies of {name}"] = {
                str(step): _above_noise(values) for step, values in zip(steps, ratio.T, strict=True)
            }
    axes.axhline(0, color="0.3", linestyle="--", linewidth=1)
    axes.set(
        xlabel="meta updates",
        ylabel="log10 of ‖later episodes‖ / ‖current episode‖",
        title="Gradient norm that later inner episodes contribute",
    )
    axes.plot([], [], ":", color="0.3", label="the others, on\nCOALA-PG's policies")
    # Lines are everywhere inside the axes.
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rows["meta-episodes of a measurement"] = meta_episodes
    write(figure, output, rows, BAND, legend=False)


def rivals(
    preset: str = "ipd-rivals-tabular",
    seeds: int = 5,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-rivals"),
) -> None:
    """App. H.3: COALA-PG and M-FOS agents in one mixed pool; the paper says that COALA shapes M-FOS into cooperation.

    Args:
        preset: of `social train`, with several estimators.
        seeds: trained at once.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.
    """
    run = trained(presets.get(preset, SocialConfig), runs / preset, seeds)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows: dict[str, Any] = {"run": origin(run)}
    for i, (name, (mean, deviation)) in enumerate(PAPER_RIVALS.items()):
        for axes, kind in ((left, "meta"), (right, "naive")):
            metric = f"{kind}/ego_reward_{name}"
            draw(axes, *column(run, metric), f"C{2 * i}", LABELS.get(name, name))
            rows[metric] = ending(run, metric)
        paper = f"paper, {LABELS.get(name, name)}: {mean:.3f} ± {deviation:.3f}"
        left.axhline(mean, color=f"C{2 * i}", linestyle=":", linewidth=1, label=paper)
        rows[f"paper, {name}"] = [mean, deviation]
    left.set(xlabel="meta updates", ylabel="reward per step", title="metas against each other")
    right.set(xlabel="meta updates", title="metas against naive learners")
    write(figure, output, rows, BAND)


SUBCOMMANDS = {
    "coala-fig4-length": fig4_length,
    "coala-fig8": fig8,
    "coala-fig12": fig12,
    "coala-rivals": rivals,
}


def _frozen_along(
    agents: analytic.AnalyticSettings, updates: int, points: int, naive_updates: int, seeds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along training [S, points + 1]: reward of the metas, of the first one frozen, and of its fresh naive learner."""
    update = analytic.make_update(agents)

    def measure(state: analytic.AnalyticState, starts: jax.Array):
        curve = jax.vmap(
            lambda start: learning_curve(state.params[0], start, agents, naive_updates)
        )
        own, theirs = curve(starts)
        mutual = analytic.mutual_reward(state.params, agents)
        return mutual, own[:, -1].mean(), theirs[:, -1].mean()

    def advance(state: analytic.AnalyticState):
        length = updates // points
        return jax.lax.scan(lambda x, _: (update(x)[0], None), state, None, length=length)[0]

    measure_all, advance_all = jax.jit(jax.vmap(measure)), jax.jit(jax.vmap(advance))
    starts = jax.random.normal(jax.random.key(2), (seeds, 8, 5))
    state = jax.vmap(lambda key: analytic.init(agents, key))(
        jax.random.split(jax.random.key(0), seeds)
    )
    found = [measure_all(state, starts)]
    for _ in range(points):
        state = advance_all(state)
        found.append(measure_all(state, starts))
    mutual, own, theirs = (np.stack(x, axis=1) for x in zip(*found, strict=True))
    return mutual, own, theirs


def _above_noise(log_ratios: np.ndarray) -> dict[str, Any]:
    """Summary over the seeds whose norms are known; a squared norm minus its noise may be below 0."""
    known = log_ratios[np.isfinite(log_ratios)]
    row = summary(known) if known.size else {}
    return row | {"seeds lost in noise": int(log_ratios.size - known.size)}


def _split_along(
    config: SocialConfig, estimators: tuple[str, ...], points: int, meta_episodes: int, seeds: int
) -> SplitNorms:
    """Norms [points + 1, S, E] of the first meta agent's gradient along its training."""
    game, policy, learner = parts(config)
    update = population.make_update(config.pool, game, policy, learner)
    each = config.iterations // points

    @jax.jit
    @jax.vmap
    def advance(state):
        return jax.lax.scan(lambda s, _: (update(s)[0], None), state, None, length=each)[0]

    def measure(state):
        return split_norms(
            jax.random.fold_in(state.key, state.step),
            game,
            policy,
            jax.tree.map(lambda x: x[0], state.params),
            learner,
            state.naive,
            estimators,
            inner_episodes=config.pool.inner_episodes,
            batch=config.pool.batch,
            group=64,
            groups=meta_episodes // 64,
        )

    # Seed by seed: all at once would need as many times the memory.
    measure_all = jax.jit(partial(jax.lax.map, measure))
    init = lambda key: population.init(config.pool, policy, learner, key)  # noqa: E731
    state = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(config.seed), seeds))
    found = [measure_all(state)]
    for _ in range(points):
        state = advance(state)
        found.append(measure_all(state))
    return jax.tree.map(lambda *x: np.stack(x), *found)
