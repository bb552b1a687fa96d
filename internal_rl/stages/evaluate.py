"""Stage 4: success on fresh layouts, for every way of driving a base model (paper Fig. 8, App. C.3).

Each function returns arrays [S, N] for S seeds and N episodes, so that intervals can be formed over both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.world import World
from internal_rl.analysis import steer
from internal_rl.analysis.latents import collect_codes, replay_controller
from internal_rl.analysis.switching import switch_alignment
from internal_rl.config import DiscoverConfig, EvaluateConfig
from internal_rl.demonstrations.contract import Demonstrations
from internal_rl.demonstrations.views import discovery_batch
from internal_rl.models.contract import Params
from internal_rl.models.metacontroller import encode
from internal_rl.models.parts import Models
from internal_rl.play.controllers import (
    Controller,
    abstract_controller,
    policy_sampler,
    prior_sampler,
    uncontrolled,
)
from internal_rl.play.rollout import rollout
from internal_rl.runs.statistics import (
    hierarchical_success_ci,
    iqm,
    pooled_success,
    success_interval,
)
from internal_rl.stages.reinforce import Frozen

PerEpisode = dict[str, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What every method of an evaluation shares."""

    world: World
    """What is played."""
    models: Models
    cfg: EvaluateConfig
    switch_threshold: float
    seed: int


@dataclass(frozen=True)
class Clean:
    """Expert behaviour as discovery read it."""

    world: World
    demonstrations: Demonstrations
    cfg: DiscoverConfig

    def batch(self, key: jax.Array, data: Any, rows: int):
        """Rows with the views of discovery."""
        return discovery_batch(key, self.world, self.demonstrations, data, rows, self.cfg)


def evaluate_policy(setting: Setting, frozen: Frozen, policies: Params) -> PerEpisode:
    """Internal RL: policies with a leading seed axis."""
    models = setting.models

    def controller(params, frozen):
        sampler = policy_sampler(models.bind_policy(params), greedy=setting.cfg.greedy)
        meta = models.bind_meta(frozen.metacontroller)
        return abstract_controller(meta, sampler, setting.switch_threshold)

    return _play(setting, lambda params, frozen: frozen.base, controller, policies, frozen)


def evaluate_prior(setting: Setting, frozen: Frozen, seeds: int) -> PerEpisode:
    """z ~ N(0, I) at every switch, before any RL."""
    sampler = prior_sampler(setting.models.code_dim)

    def controller(params, frozen):
        del params
        meta = setting.models.bind_meta(frozen.metacontroller)
        return abstract_controller(meta, sampler, setting.switch_threshold)

    none = jnp.zeros((seeds,))
    return _play(setting, lambda params, frozen: frozen.base, controller, none, frozen)


def evaluate_replay(setting: Setting, clean: Clean, frozen: Frozen, seeds: int) -> PerEpisode:
    """Codes recorded on expert trajectories of the pretraining tasks, replayed in the true order (paper, Fig. 6)."""
    models = setting.models

    @jax.jit
    def record(key, frozen, data):
        batch = clean.batch(key, data, 1024)
        base, meta = models.bind_base(frozen.base), models.bind_meta(frozen.metacontroller)
        return collect_codes(base, meta, batch, key, clean.world.num_goals)

    def controller(params, shared):
        del params
        frozen, bank = shared
        return replay_controller(models.bind_meta(frozen.metacontroller), bank)

    key = jax.random.fold_in(jax.random.key(setting.seed), 4)
    bank = record(key, frozen, clean.demonstrations.data)
    none = jnp.zeros((seeds,))
    return _play(setting, lambda params, shared: shared[0].base, controller, none, (frozen, bank))


def evaluate_raw(setting: Setting, bases: Params) -> PerEpisode:
    """Base models by themselves (raw-action RL, or the pretrained model), with a leading seed axis."""
    return _play(setting, lambda params, _: params, lambda params, _: uncontrolled(), bases, ())


def evaluate_steering(setting: Setting, base: Params, controls: Params) -> PerEpisode:
    """Labelled controllers switched on in the true order; `controls` from `train_steering`, with a leading seed axis."""
    return _play(
        setting,
        lambda params, base: base,
        lambda params, base: steer.labelled_controller(params),
        controls,
        base,
    )


def train_steering(
    setting: Setting, clean: Clean, base: Params, seeds: int = 1
) -> tuple[Params, np.ndarray]:
    """Labelled controllers [seeds, ...], and their last loss in nats per step [seeds]."""
    steps, models = setting.cfg.steering_steps, setting.models
    rows = min(clean.cfg.batch_size, steer.MOST_ROWS)
    update = steer.make_update(models, clean.demonstrations, rows, steps)

    @jax.jit
    def train(keys, base, data):
        def one(key):
            step = lambda state, _: update(state, (base, data))  # noqa: E731
            state = steer.init(key, clean.world.num_goals, models.base.width, steps)
            return jax.lax.scan(step, state, None, length=steps)

        state, metrics = jax.vmap(one)(keys)
        return state.params, metrics["loss"][:, -50:].mean(axis=1)

    key = jax.random.fold_in(jax.random.key(setting.seed), 1)
    data = clean.demonstrations.data
    return jax.device_get(train(jax.random.split(key, seeds), base, data))


def evaluate_alignment(
    setting: Setting, clean: Clean, frozen: Frozen, sequences: int = 1024
) -> dict[str, float]:
    """Switch alignment on fresh expert trajectories, without noise in code and gate."""
    models = setting.models

    @jax.jit
    def align(key, frozen, data):
        batch = clean.batch(key, data, sequences)
        base, meta = models.bind_base(frozen.base), models.bind_meta(frozen.metacontroller)
        _, found = encode(base, meta, batch, key, sample=False)  # draws nothing
        return switch_alignment(
            found.switch_probability,
            batch.goal_change,
            batch.valid,
            threshold=setting.switch_threshold,
        )

    key = jax.random.fold_in(jax.random.key(setting.seed), 2)
    found = align(key, frozen, clean.demonstrations.data)
    return {name: float(value) for name, value in found.items()}


def summarise(result: PerEpisode, *, seed: int = 0) -> dict[str, Any]:
    """Success as interquartile mean over seeds with a 95 % interval that resamples seeds, then episodes.

    Where every episode of every seed ended alike, a bootstrap interval has no width; the Wilson interval of the pooled
    episodes stands in.
    """
    success = result["success"]
    seeds, episodes = success.shape
    counts = success.sum(axis=1)
    if counts.sum() in (0, success.size):
        interval = success_interval(int(counts.sum()), success.size)
    else:
        interval = hierarchical_success_ci(counts, episodes, seed=seed)
    return {
        "success_iqm": float(iqm(counts / episodes)),
        "ci95": [float(x) for x in interval],
        "success_pooled": pooled_success(counts, episodes),
        "success_per_seed": [float(x) for x in counts / episodes],
        "subgoals": float(result["subgoals"].mean()),
        "switches_per_episode": float(result["switches"].mean()),
        "evaluation_episodes": int(episodes),
        "seeds": int(seeds),
    }


def _play(
    setting: Setting,
    base_of: Callable[[Any, Any], Params],
    controller_of: Callable[[Any, Any], Controller],
    per_seed: Any,
    shared: Any,
) -> PerEpisode:
    """Episodes [S, N] from fresh starts; every seed and every method sees the same starts."""
    world, models = setting.world, setting.models
    seeds = jax.tree.leaves(per_seed)[0].shape[0]

    @jax.jit
    def play(keys, per_seed, shared):
        def one(key, params):
            key_start, key_rollout = key
            start, _ = world.starts(key_start, setting.cfg.episodes)
            base = models.bind_base(base_of(params, shared))
            episodes = rollout(key_rollout, world, base, controller_of(params, shared), start)
            switches = jnp.sum(episodes.decision.switch & episodes.alive, axis=1)
            steps = jnp.sum(episodes.alive, axis=1)
            return {
                "success": episodes.success,
                "subgoals": episodes.progress,
                "switches": switches,
                "steps": steps,
            }

        return jax.vmap(one)(keys, per_seed)

    starts, rollouts = jax.random.split(jax.random.fold_in(jax.random.key(setting.seed), 3))
    keys = (jax.random.split(starts, seeds), jax.random.split(rollouts, seeds))
    return jax.device_get(play(keys, per_seed, shared))
