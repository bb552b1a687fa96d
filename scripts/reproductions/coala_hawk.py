"""What cooperation of Hawk metas in COALA's mixed pool hangs on (arXiv 2410.18636, Fig. 5C, at laptop scale)."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.learning_aware.shaping import against_naive
from configs import social as presets
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir
from internal_rl.social.config import SocialConfig
from internal_rl.social.evaluate import evaluate_run, summary
from internal_rl.social.pipeline import load_state, parts
from reproductions.coala_analysis import POOL_METRICS
from reproductions.social_figures import BAND, RUNS, column, draw, ending, origin, trained, write

_HAWK_POOL = "ipd-mixed-hawk-laptop"
HAWK_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "preset": ("naive learners start at P(C) drawn anew", {}),
    "uniform": ("naive learners all start at P(C) = 1/2", {"uniform": True}),
    "per_step": ("centred per step", {"centre": "per_step"}),
    "rate": ("Adam 0.01", {"learning_rate": 0.01}),
    "before": (
        "the preset before: uniform starts, centred per step, Adam 0.01",
        {"uniform": True, "centre": "per_step", "learning_rate": 0.01},
    ),
    "step": ("sees the last joint action only", {"memory": "step"}),
}
"""Label, and changes to the preset above."""
STARTS = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""P(C) in every state at which a naive learner may start."""


def hawk_pool(
    variants: tuple[str, ...] = ("preset", "uniform"),
    seeds: int = 6,
    seed: int = 0,
    runs: Path = RUNS,
    output: Path = Path("docs/results/coala-hawk-pool"),
) -> None:
    """Fig. 5C with Hawk policies at laptop scale: what cooperation in the mixed pool hangs on. COALA-PG.

    Args:
        variants: preset (naive learners start at logits ~ N(0, 0.7²), drawn for every meta-episode), uniform, per_step
            (centring), rate (Adam 0.01), before (all of these) or step (a memory of one step).
        seeds: trained at once.
        seed: the key that they are split from; another number makes other seeds.
        runs: folder of the run directories.
        output: path of the PNG and the JSON, without suffix.

    Raises:
        UserError: an unknown variant, or one whose run directory holds other settings.
    """
    for name in variants:
        if name not in HAWK_VARIANTS:
            raise UserError(f"variants holds '{name}'; allowed: {', '.join(HAWK_VARIANTS)}")
    labels = [HAWK_VARIANTS[name][0] for name in variants]
    figure = Figure(figsize=(17, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    rows: dict[str, Any] = {}

    def show(axes: Axes, x: Any, y: np.ndarray, i: int, label: str) -> None:
        if len(labels) > 1:
            return draw(axes, x, y, f"C{i}", label)
        for seed, values in enumerate(y):
            axes.plot(x, values, color=f"C{seed}", label=f"seed {seed}")
        return None

    for i, name in enumerate(variants):
        label, changes = HAWK_VARIANTS[name]
        kind = [*([] if name == "preset" else [name]), *([f"seed{seed}"] if seed else [])]
        path = runs / "-".join((_HAWK_POOL, "coala", *kind))
        run = trained(replace(_hawk_variant(**changes), seed=seed), path, seeds)
        for axes, metric in zip(panels[:2], ("meta/ego_reward", "naive/ego_reward"), strict=True):
            show(axes, *column(run, metric), i, label)
        by_start = _by_start(run)
        show(panels[2], STARTS, by_start, i, label)
        rows[name] = {m: ending(run, m) for m in POOL_METRICS} | {"run": origin(run)}
        # Half the reward of cooperation may be alternation, which only these tell from it.
        observed = evaluate_run(run, episodes=4)["cooperation_by_observation"]
        rows[name]["metas' P(C) at the start and after CC, CD, DC, DD"] = observed["meta"]
        found = zip(STARTS, by_start.T, strict=True)
        rows[name]["against naive by P(C) of the start"] = {f"{p}": summary(x) for p, x in found}
    panels[0].set(xlabel="meta updates", ylabel="reward per step", title="metas against each other")
    panels[1].set(xlabel="meta updates", title="meta against the naive learners of training")
    panels[2].set(
        xlabel="P(C) at which the naive learner starts",
        title="after training, by the learner's start",
    )
    figure.suptitle("Prisoner's dilemma, mixed pool of naive learners and two Hawk metas, COALA-PG")
    write(figure, output, rows, f"{labels[0]}; seeds of key {seed}" if len(labels) == 1 else BAND)


SUBCOMMANDS = {"coala-hawk-pool": hawk_pool}


def _hawk_variant(
    memory: Literal["meta_episode", "step"] = "meta_episode",
    centre: Literal["per_step"] | None = None,
    learning_rate: float | None = None,
    uniform: bool = False,
) -> SocialConfig:
    config = presets.get(_HAWK_POOL, SocialConfig)
    objective = config.pool.objective
    if centre is not None:
        objective = replace(objective, centre=centre)
    if learning_rate is not None:
        optimizer = replace(objective.optimizer, learning_rate=learning_rate)
        objective = replace(objective, optimizer=optimizer)
    policy, pool = replace(config.policy, memory=memory), replace(config.pool, objective=objective)
    naive = config.naive
    if uniform:
        naive = replace(naive, policy=replace(naive.policy, noise=0.0))
        pool = replace(pool, fresh_naive=False)
    return replace(config, policy=policy, naive=naive, pool=pool)


def _by_start(run: RunDir, episodes: int = 8) -> np.ndarray:
    """Mean reward [S, starts] of the metas against naive learners that start at each of STARTS in every state."""
    config = run.load_config(SocialConfig)
    game, policy, learner = parts(config)
    logits = jnp.log(jnp.array(STARTS)) - jnp.log1p(-jnp.array(STARTS))
    blank = learner.policy.init(jax.random.key(0))
    sizes = {"inner_episodes": config.pool.inner_episodes, "batch": config.pool.batch}

    def reward(key: jax.Array, params: Any, logit: jax.Array) -> jax.Array:
        start = jax.tree.map(lambda x: jnp.full_like(x, logit), blank)
        played, _ = against_naive(key, game, policy, params, learner, start, **sizes)
        return jnp.mean(played.reward)

    of_starts = jax.vmap(reward, in_axes=(None, None, 0))
    keys = jax.random.split(jax.random.key(config.seed), episodes)
    of_agents = jax.vmap(jax.vmap(of_starts, in_axes=(0, None, None)), in_axes=(None, 0, None))
    of_seed = lambda params: jnp.mean(of_agents(keys, params, logits), axis=(0, 1))  # noqa: E731
    return np.asarray(jax.jit(lambda params: jax.lax.map(of_seed, params))(load_state(run).params))
