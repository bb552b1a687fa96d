"""What a trained run is worth: evaluation as JSON, pictures of single episodes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.world import World
from internal_rl import build
from internal_rl.analysis.film import episode_gif
from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.models.metacontroller import encode
from internal_rl.models.parts import Models
from internal_rl.pipeline import load_base, load_frozen, load_params, load_parent
from internal_rl.play.controllers import abstract_controller, policy_sampler, prior_sampler
from internal_rl.play.rollout import Episodes, rollout
from internal_rl.runs.plots import SwitchingTrajectory, switching_trajectories
from internal_rl.runs.run_dir import RunDir
from internal_rl.stages import evaluate
from internal_rl.stages.reinforce import Frozen


def evaluate_run(
    run: RunDir,
    config: Config,
    tasks: tuple[str, ...],
    seeds: int = 3,
    seed_index: int = 0,
    layers: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Everything that a run of its stage can show on a task set.

    Args:
        run: run of any stage.
        config: its config, with the evaluation's settings.
        tasks: what is played.
        seeds: of prior sampling, replayed codes and steering.
        seed_index: which seed of a pretrain or discover run; `uncontrolled` and trained policies show all of theirs.
        layers: pretrain runs: also steer at these layers.

    Returns:
        pretrain: `uncontrolled`, `steering`, with `layers` also `steering_by_layer`. discover: `prior_sampling`,
        `replayed_codes`, `switching` (expert trajectories as in discovery), `switching_these_tasks` (of `tasks`, if an
        expert can be asked). reinforce: `internal_rl` or `raw_action`. Each with the fields of
        `stages.evaluate.summarise`. What needs sub-goals is left out in a world without (`num_goals` 0).
    """
    world = build.heldout_world(config.env, tasks)
    result: dict[str, Any] = {"run": str(run.path), "tasks": list(tasks)}
    if run.stage == "pretrain":
        return result | _of_base(run, config, world, seeds, seed_index, layers)
    if run.stage == "discover":
        # The encoder is to read what it read in training.
        config = replace(config, discover=run.config.discover)
        return result | _of_metacontroller(run, config, world, seeds, seed_index)
    method, outcome = policy_outcome(run, config, world)
    return result | {method: _summary(config, outcome)}


def setting(config: Config, world: World, layer: int | None = None) -> evaluate.Setting:
    """What a config's evaluations share, at its controlled layer or at another."""
    return evaluate.Setting(
        world,
        build.models(config, world, layer),
        config.evaluate,
        config.reinforce.switch_threshold,
        config.seed,
    )


def clean(config: Config) -> evaluate.Clean:
    """Clean behaviour on the pretraining tasks, ties of the expert as in discovery."""
    world = build.pretrain_world(config.env)
    found = build.demonstrations(
        config, world, clean=True, tie_breaking=config.discover.tie_breaking
    )
    return evaluate.Clean(world, _on_device(found), config.discover)


def _on_device(found: Any) -> Any:
    if not hasattr(found, "rows"):
        raise UserError(
            "data.device_gib: the evaluation reads demonstrations on the device; allowed: at least the size of the data"
        )
    return found


def _of_base(
    run: RunDir,
    config: Config,
    world: World,
    seeds: int,
    seed_index: int,
    layers: tuple[int, ...],
) -> dict[str, Any]:
    bases = load_params(run, None)
    found: dict[str, Any] = {
        "uncontrolled": _summary(config, evaluate.evaluate_raw(setting(config, world), bases))
    }
    if not world.num_goals:
        return found
    base = load_base(run, seed_index)
    found["steering"] = steering(config, world, base, seeds)
    if layers:
        found["steering_by_layer"] = {
            str(layer): steering(config, world, base, seeds, layer) for layer in layers
        }
    return found


def _of_metacontroller(
    run: RunDir, config: Config, world: World, seeds: int, seed_index: int
) -> dict[str, Any]:
    frozen = load_frozen(run, seed_index)
    shared = setting(config, world)
    found: dict[str, Any] = {
        "prior_sampling": _summary(config, evaluate.evaluate_prior(shared, frozen, seeds))
    }
    if not world.num_goals:
        return found
    as_read = clean(config)
    replayed = evaluate.evaluate_replay(shared, as_read, frozen, seeds)
    found["replayed_codes"] = _summary(config, replayed)
    found["switching"] = evaluate.evaluate_alignment(shared, as_read, frozen)
    here = build.expert(config, world, clean=True)
    if here is not None:
        these = evaluate.Clean(world, here, config.discover)
        found["switching_these_tasks"] = evaluate.evaluate_alignment(shared, these, frozen)
    return found


def policy_outcome(run: RunDir, config: Config, world: World) -> tuple[str, evaluate.PerEpisode]:
    """Episodes [S, N] of a reinforce run's trained policies, with the method's name in summaries."""
    params = load_params(run, None)
    shared = setting(config, world)
    if config.reinforce.method == "internal":
        return "internal_rl", evaluate.evaluate_policy(shared, load_parent(run), params)
    return "raw_action", evaluate.evaluate_raw(shared, params)


def steering(
    config: Config, world: World, base: Any, seeds: int, layer: int | None = None
) -> dict[str, Any]:
    """Labelled controllers trained on the pretraining tasks with the expert's ties at random, evaluated on `world`."""
    shared = setting(config, world, layer)
    train_world = build.pretrain_world(config.env)
    data = _on_device(build.demonstrations(config, train_world, clean=True))
    labelled = evaluate.Clean(train_world, data, config.discover)
    controls, loss = evaluate.train_steering(shared, labelled, base, seeds)
    outcome = evaluate.evaluate_steering(shared, base, controls)
    summary = _summary(config, outcome)
    return {"success": summary["success_iqm"], "nats_per_step": float(loss.mean()), **summary}


def render_run(run: RunDir, folder: Path, *, seed: int = 0, seed_index: int = 0) -> list[Path]:
    """Draw `episode.gif` (held-out task) and `switching.png` (three expert trajectories) into `folder`, as far as the
    world draws its states and names sub-goals.

    `seed` is that of the starts, `seed_index` says which seed of the run is shown.

    Raises:
        UserError: the run has no metacontroller, or there is nothing to draw.
    """
    config = run.config
    if run.stage == "pretrain" or (
        run.stage == "reinforce" and config.reinforce.method != "internal"
    ):
        raise UserError(f"{run.path} has no metacontroller; render a discover or internal-RL run")
    world = build.heldout_world(config.env)
    if not (world.num_goals or hasattr(world, "draw")):
        raise UserError(f"{run.path}: its world has neither sub-goals nor a member `draw`")
    reinforced = run.stage == "reinforce"
    frozen = load_parent(run) if reinforced else load_frozen(run, seed_index)
    policy = load_params(run, seed_index) if reinforced else None
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if world.num_goals:
        drawn.append(folder / "switching.png")
        draw_switching(config, frozen, drawn[-1], seed=seed)
    if hasattr(world, "draw"):
        drawn.append(folder / "episode.gif")
        draw_episode(config, frozen, policy, drawn[-1], seed=seed)
    return drawn


def draw_switching(config: Config, frozen: Frozen, path: Path, *, seed: int = 0) -> None:
    """β_t over the true sub-goals of three expert trajectories of different tasks (paper, Fig. 6)."""
    as_read = clean(config)
    world, models = as_read.world, build.models(config, as_read.world)

    @jax.jit
    def run(key, frozen, data):
        batch = as_read.batch(key, data, 64)
        base, meta = models.bind_base(frozen.base), models.bind_meta(frozen.metacontroller)
        return batch, encode(base, meta, batch, key, sample=False)[1]

    data = as_read.demonstrations.data
    batch, found = jax.device_get(run(jax.random.key(seed), frozen, data))
    length = batch.valid.sum(axis=1)
    name_task = getattr(world, "name_task", str)
    items = [
        SwitchingTrajectory(
            beta=found.switch_probability[i],
            goal=batch.goal[i],
            length=int(length[i]),
            title=f"task {name_task(int(batch.task[i, 0]))}" if batch.task[i, 0] >= 0 else "",
        )
        for i in _distinct_tasks(batch.task[:, 0], length)
    ]
    switching_trajectories(
        path, items, threshold=config.reinforce.switch_threshold, colours=goal_colours(world)
    )


def draw_episode(config: Config, frozen: Frozen, policy: Any, path: Path, *, seed: int = 0) -> bool:
    """GIF of the first successful of 64 episodes on the held-out task (of the best, if none succeeds).

    Args:
        policy: parameters of π(z | e); None draws codes from their prior.

    Returns:
        Whether the episode drawn was a success.
    """
    world: Any = build.heldout_world(config.env)
    episodes = jax.device_get(_episodes(config, world, frozen, policy, seed))
    steps = episodes.alive.sum(axis=1)
    i = int(np.lexsort((steps, -episodes.progress))[0])
    length = int(steps[i])
    states = [jax.tree.map(lambda x, t=t: x[i, t], episodes.state) for t in range(length)]
    states.append(jax.tree.map(lambda x: x[i], episodes.final_state))
    episode_gif(
        path,
        np.stack([world.draw(state) for state in states]),
        episodes.decision.gate[i, :length],
        episodes.decision.z[i, :length],
        episodes.goal[i, :length] if world.num_goals else None,
        colours=goal_colours(world),
    )
    return bool(episodes.success[i])


def goal_colours(world: Any) -> list[tuple[int, int, int]] | None:
    """RGB of every sub-goal where the world says so."""
    if not hasattr(world, "goal_colour"):
        return None
    return [world.goal_colour(i) for i in range(world.num_goals)]


def _episodes(config: Config, world: World, frozen: Frozen, policy: Any, seed: int) -> Episodes:
    models: Models = build.models(config, world)

    @jax.jit
    def play(key, frozen, policy):
        key_start, key_rollout = jax.random.split(key)
        start, _ = world.starts(key_start, 64)
        sampler = (
            prior_sampler(models.code_dim)
            if policy is None
            else policy_sampler(models.bind_policy(policy))
        )
        meta = models.bind_meta(frozen.metacontroller)
        controller = abstract_controller(meta, sampler, config.reinforce.switch_threshold)
        base = models.bind_base(frozen.base)
        return rollout(key_rollout, world, base, controller, start, keep=("state",))

    return play(jax.random.key(seed), frozen, policy)


def _distinct_tasks(task: np.ndarray, length: np.ndarray) -> list[int]:
    """Indices of three trajectories of different tasks, long ones first."""
    order = np.argsort(-length, kind="stable")
    first = {int(task[i]): int(i) for i in order[::-1]}
    return sorted(first.values(), key=lambda i: -int(length[i]))[:3]


def _summary(config: Config, outcome: evaluate.PerEpisode) -> dict[str, Any]:
    return evaluate.summarise(outcome, seed=config.seed)
