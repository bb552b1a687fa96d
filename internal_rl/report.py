"""What a trained run is worth: evaluation as JSON, pictures of single episodes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.pinpad.render import episode_gif
from internal_rl.config import Config
from internal_rl.data import discovery_batch
from internal_rl.errors import UserError
from internal_rl.metacontroller import encode
from internal_rl.networks import base_network, metacontroller_network, policy_network
from internal_rl.pipeline import load_base, load_frozen, load_params, load_parent
from internal_rl.rollout import (
    Episodes,
    abstract_controller,
    policy_sampler,
    prior_sampler,
    rollout,
)
from internal_rl.runs.plots import SwitchingTrajectory, switching_trajectories
from internal_rl.runs.run_dir import RunDir
from internal_rl.stages import evaluate
from internal_rl.stages.reinforce import Frozen
from internal_rl.world import World, heldout_world, make_world, pretrain_world


def evaluate_run(
    run: RunDir, config: Config, tasks: tuple[str, ...], seeds: int = 3, seed_index: int = 0
) -> dict[str, Any]:
    """Everything that a run of its stage can show on a task set.

    Args:
        run: run of any stage.
        config: its config, with the evaluation's settings.
        tasks: what is played.
        seeds: of prior sampling, replayed codes and steering.
        seed_index: which seed of a pretrain or discover run; `uncontrolled` and trained policies show all of theirs.

    Returns:
        pretrain: `uncontrolled`, `steering`. discover: `prior_sampling`, `replayed_codes`, `switching` (expert
        trajectories as in discovery), `switching_these_tasks` (of `tasks`, the expert drawing among optimal actions).
        reinforce: `internal_rl` or `raw_action`. Each with the fields of `stages.evaluate.summarise`.
    """
    world = make_world(config.env, tasks)
    result: dict[str, Any] = {"run": str(run.path), "tasks": list(tasks)}
    if run.stage == "pretrain":
        bases = load_params(run, None)
        result["uncontrolled"] = _summary(config, evaluate.evaluate_raw(config, world, bases))
        result["steering"] = steering(config, world, load_base(run, seed_index), seeds)
    elif run.stage == "discover":
        frozen = load_frozen(run, seed_index)
        # The encoder is to read what it read in training.
        config = replace(config, discover=run.config.discover)
        result["prior_sampling"] = _summary(
            config, evaluate.evaluate_prior(config, world, frozen, seeds)
        )
        result["replayed_codes"] = _summary(
            config, evaluate.evaluate_replay(config, world, frozen, seeds)
        )
        result["switching"] = evaluate.evaluate_alignment(config, frozen)
        result["switching_these_tasks"] = evaluate.evaluate_alignment(
            config, frozen, world, "uniform"
        )
    else:
        method, outcome = policy_outcome(run, config, world)
        result[method] = _summary(config, outcome)
    return result


def policy_outcome(run: RunDir, config: Config, world: World) -> tuple[str, evaluate.PerEpisode]:
    """Episodes [S, N] of a reinforce run's trained policies, with the method's name in summaries."""
    params = load_params(run, None)
    if config.reinforce.method == "internal":
        frozen = load_parent(run)
        return "internal_rl", evaluate.evaluate_policy(config, world, frozen, params)
    return "raw_action", evaluate.evaluate_raw(config, world, params)


def steering(config: Config, world: World, base, seeds: int) -> dict[str, Any]:
    """Labelled controllers trained on the pretraining tasks, evaluated on `world`: the steering upper bound."""
    controls, loss = evaluate.train_steering(config, base, seeds)
    outcome = evaluate.evaluate_steering(config, world, base, controls)
    summary = _summary(config, outcome)
    return {"success": summary["success_iqm"], "nats_per_step": float(loss.mean()), **summary}


def render_run(run: RunDir, folder: Path, *, seed: int = 0, seed_index: int = 0) -> list[Path]:
    """Draw `episode.gif` (held-out task) and `switching.png` (three expert trajectories) into `folder`.

    `seed` is that of the layouts, `seed_index` says which seed of the run is shown.

    Raises:
        UserError: the run has no metacontroller.
    """
    config = run.config
    if run.stage == "pretrain" or (
        run.stage == "reinforce" and config.reinforce.method != "internal"
    ):
        raise UserError(f"{run.path} has no metacontroller; render a discover or internal-RL run")
    reinforced = run.stage == "reinforce"
    frozen = load_parent(run) if reinforced else load_frozen(run, seed_index)
    policy = load_params(run, seed_index) if reinforced else None
    folder.mkdir(parents=True, exist_ok=True)
    picture, gif = folder / "switching.png", folder / "episode.gif"
    draw_switching(config, frozen, picture, seed=seed)
    draw_episode(config, frozen, policy, gif, seed=seed)
    return [picture, gif]


def draw_switching(config: Config, frozen: Frozen, path: Path, *, seed: int = 0) -> None:
    """β_t over the true sub-goals of three expert trajectories of different tasks (paper, Fig. 6)."""
    world = pretrain_world(config.env)
    base_net = base_network(config, world.obs_spec, world.action_spec)
    meta_net = metacontroller_network(config)

    @jax.jit
    def run(key, frozen):
        batch = discovery_batch(key, world, 64, config.discover)
        base, meta = base_net.bind(frozen.base), meta_net.bind(frozen.metacontroller)
        return batch, encode(base, meta, batch, key, sample=False)[1]

    batch, found = jax.device_get(run(jax.random.key(seed), frozen))
    length = batch.valid.sum(axis=1)
    chosen = _distinct_tasks(batch.task[:, 0], length)
    items = [
        SwitchingTrajectory(
            beta=found.switch_probability[i],
            goal=batch.goal[i],
            length=int(length[i]),
            title=f"task {'-'.join(world.sequences[batch.task[i, 0]])}",
        )
        for i in chosen
    ]
    switching_trajectories(path, items, threshold=config.reinforce.switch_threshold)


def draw_episode(config: Config, frozen: Frozen, policy: Any, path: Path, *, seed: int = 0) -> bool:
    """GIF of the first successful of 64 episodes on the held-out task (of the best, if none succeeds).

    Args:
        policy: parameters of π(z | e); None draws codes from their prior.

    Returns:
        Whether the episode drawn was a success.
    """
    world = heldout_world(config.env)
    episodes = jax.device_get(_episodes(config, world, frozen, policy, seed))
    steps = episodes.alive.sum(axis=1)
    best = np.lexsort((steps, -episodes.progress))
    i = int(best[0])
    length = int(steps[i])
    agent = _agent_path(world, episodes, i, length)
    episode_gif(
        path,
        episodes.layout.objects[i],
        episodes.layout.walls[i],
        agent,
        config.env.grid_size,
        episodes.decision.gate[i, :length],
        episodes.decision.z[i, :length],
        episodes.goal[i, :length],
    )
    return bool(episodes.success[i])


def _episodes(config: Config, world: World, frozen: Frozen, policy: Any, seed: int) -> Episodes:
    base_net = base_network(config, world.obs_spec, world.action_spec)
    meta_net, policy_net = metacontroller_network(config), policy_network(config)

    @jax.jit
    def play(key, frozen, policy):
        key_start, key_rollout = jax.random.split(key)
        layout, task, _ = world.sample_starts(key_start, 64)
        sampler = (
            prior_sampler(config.metacontroller.code_dim)
            if policy is None
            else policy_sampler(policy_net.bind(policy))
        )
        meta = meta_net.bind(frozen.metacontroller)
        controller = abstract_controller(meta, sampler, config.reinforce.switch_threshold)
        base = base_net.bind(frozen.base)
        return rollout(key_rollout, world, base, controller, layout, task)

    return play(jax.random.key(seed), frozen, policy)


def _agent_path(world: World, episodes: Episodes, i: int, length: int) -> np.ndarray:
    """Agent cells before every action and after the last [length + 1]; the last move is replayed."""
    cells = episodes.agent[i, :length]
    size = world.env.grid_size
    row, column = divmod(int(cells[-1]), size)
    d_row, d_column = ((-1, 0), (1, 0), (0, -1), (0, 1))[int(episodes.action[i, length - 1])]
    row, column = row + d_row, column + d_column
    inside = 0 <= row < size and 0 <= column < size
    target = row * size + column
    blocked = not inside or target in episodes.layout.walls[i]
    return np.append(cells, cells[-1] if blocked else target)


def _distinct_tasks(task: np.ndarray, length: np.ndarray) -> list[int]:
    """Indices of three trajectories of different tasks, long ones first."""
    order = np.argsort(-length, kind="stable")
    first = {int(task[i]): int(i) for i in order[::-1]}
    return sorted(first.values(), key=lambda i: -int(length[i]))[:3]


def _summary(config: Config, outcome: evaluate.PerEpisode) -> dict[str, Any]:
    return evaluate.summarise(outcome, seed=config.seed)
