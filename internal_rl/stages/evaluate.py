"""Stage 4: success on fresh layouts, for every way of driving a base model (paper Fig. 8, App. C.3).

Each function returns arrays [S, N] for S seeds and N episodes, so that intervals can be formed over both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.pinpad.expert import TieBreaking
from internal_rl.analysis import steer
from internal_rl.analysis.latents import collect_codes, replay_controller
from internal_rl.analysis.switching import switch_alignment
from internal_rl.config import Config
from internal_rl.data import discovery_batch
from internal_rl.metacontroller import encode
from internal_rl.networks import (
    Params,
    base_network,
    metacontroller_network,
    policy_network,
)
from internal_rl.rollout import (
    Controller,
    abstract_controller,
    policy_sampler,
    prior_sampler,
    rollout,
    uncontrolled,
)
from internal_rl.runs.statistics import (
    hierarchical_success_ci,
    iqm,
    pooled_success,
    success_interval,
)
from internal_rl.stages.reinforce import Frozen
from internal_rl.world import World, pretrain_world

PerEpisode = dict[str, np.ndarray]


def evaluate_policy(config: Config, world: World, frozen: Frozen, policies: Params) -> PerEpisode:
    """Internal RL: policies with a leading seed axis."""
    policy_net = policy_network(config)
    meta_net = metacontroller_network(config)
    greedy, threshold = config.evaluate.greedy, config.reinforce.switch_threshold

    def controller(params, frozen):
        sampler = policy_sampler(policy_net.bind(params), greedy=greedy)
        return abstract_controller(meta_net.bind(frozen.metacontroller), sampler, threshold)

    return _play(config, world, lambda params, frozen: frozen.base, controller, policies, frozen)


def evaluate_prior(config: Config, world: World, frozen: Frozen, seeds: int) -> PerEpisode:
    """z ~ N(0, I) at every switch, before any RL."""
    meta_net = metacontroller_network(config)
    sampler = prior_sampler(config.metacontroller.code_dim)

    def controller(params, frozen):
        del params
        meta = meta_net.bind(frozen.metacontroller)
        return abstract_controller(meta, sampler, config.reinforce.switch_threshold)

    none = jnp.zeros((seeds,))
    return _play(config, world, lambda params, frozen: frozen.base, controller, none, frozen)


def evaluate_replay(config: Config, world: World, frozen: Frozen, seeds: int) -> PerEpisode:
    """Codes recorded on expert trajectories of the pretraining tasks, replayed in the true order (paper, Fig. 6)."""
    pretraining = pretrain_world(config.env)
    base_net = base_network(config, world.obs_spec, world.action_spec)
    meta_net = metacontroller_network(config)

    @jax.jit
    def record(key, frozen):
        batch = discovery_batch(key, pretraining, 1024, config.discover)
        base, meta = base_net.bind(frozen.base), meta_net.bind(frozen.metacontroller)
        return collect_codes(base, meta, batch, key, config.env.num_objects)

    def controller(params, shared):
        del params
        frozen, bank = shared
        return replay_controller(meta_net.bind(frozen.metacontroller), bank)

    bank = record(jax.random.fold_in(jax.random.key(config.seed), 4), frozen)
    none = jnp.zeros((seeds,))
    return _play(
        config, world, lambda params, shared: shared[0].base, controller, none, (frozen, bank)
    )


def evaluate_raw(config: Config, world: World, bases: Params) -> PerEpisode:
    """Base models by themselves (raw-action RL, or the pretrained model), with a leading seed axis."""
    return _play(
        config, world, lambda params, _: params, lambda params, _: uncontrolled(), bases, ()
    )


def evaluate_steering(config: Config, world: World, base: Params, controls: Params) -> PerEpisode:
    """Labelled controllers switched on in the true order; `controls` from `train_steering`, with a leading seed axis."""
    return _play(
        config,
        world,
        lambda params, base: base,
        lambda params, base: steer.labelled_controller(params),
        controls,
        base,
    )


def train_steering(config: Config, base: Params, seeds: int = 1) -> tuple[Params, np.ndarray]:
    """Labelled controllers [seeds, ...], and their last loss in nats per step [seeds]."""
    update = steer.make_update(config)

    @jax.jit
    def train(keys, base):
        def one(key):
            step = lambda state, _: update(state, base)  # noqa: E731
            state = steer.init(config, key)
            return jax.lax.scan(step, state, None, length=config.evaluate.steering_steps)

        state, metrics = jax.vmap(one)(keys)
        return state.params, metrics["loss"][:, -50:].mean(axis=1)

    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    return jax.device_get(train(jax.random.split(key, seeds), base))


def evaluate_alignment(
    config: Config,
    frozen: Frozen,
    world: World | None = None,
    tie_breaking: TieBreaking | None = None,
    sequences: int = 1024,
) -> dict[str, float]:
    """Switch alignment on fresh expert trajectories, without noise in code and gate.

    Args:
        config: names world and ties where they are not given: those of discovery.
        frozen: base model and metacontroller.
        world: other tasks than the pretraining tasks.
        tie_breaking: how the expert chooses among optimal actions.
        sequences: trajectories.
    """
    world = world or pretrain_world(config.env)
    base_net = base_network(config, world.obs_spec, world.action_spec)
    meta_net = metacontroller_network(config)

    @jax.jit
    def align(key, frozen):
        batch = discovery_batch(key, world, sequences, config.discover, tie_breaking)
        base, meta = base_net.bind(frozen.base), meta_net.bind(frozen.metacontroller)
        _, found = encode(base, meta, batch, key, sample=False)
        return switch_alignment(
            found.switch_probability,
            batch.goal_change,
            batch.valid,
            threshold=config.reinforce.switch_threshold,
        )

    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    return {name: float(value) for name, value in align(key, frozen).items()}


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
    config: Config,
    world: World,
    base_of: Callable[[Any, Any], Params],
    controller_of: Callable[[Any, Any], Controller],
    per_seed: Any,
    shared: Any,
) -> PerEpisode:
    """Episodes [S, N] on fresh solvable layouts; every seed and every method sees the same layouts."""
    base_net = base_network(config, world.obs_spec, world.action_spec)
    seeds = jax.tree.leaves(per_seed)[0].shape[0]

    @jax.jit
    def play(keys, per_seed, shared):
        def one(key, params):
            key_start, key_rollout = key
            layout, task, _ = world.sample_starts(key_start, config.evaluate.episodes)
            base = base_net.bind(base_of(params, shared))
            episodes = rollout(
                key_rollout, world, base, controller_of(params, shared), layout, task
            )
            switches = jnp.sum(episodes.decision.switch & episodes.alive, axis=1)
            steps = jnp.sum(episodes.alive, axis=1)
            return {
                "success": episodes.success,
                "subgoals": episodes.progress,
                "switches": switches,
                "steps": steps,
            }

        return jax.vmap(one)(keys, per_seed)

    starts, rollouts = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 3))
    keys = (jax.random.split(starts, seeds), jax.random.split(rollouts, seeds))
    return jax.device_get(play(keys, per_seed, shared))
