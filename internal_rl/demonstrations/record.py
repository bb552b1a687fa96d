"""Play a policy in a world and write what it did as demonstrations."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from agents import references
from envs.world import World
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError

Policy = Callable[[jax.Array, Any, Any], Any]
"""(key, obs [*O], state) → action [*A], of one episode, pure. The state is the world's, so that an expert may look."""


@dataclass(frozen=True)
class Recording:
    """What `record` did."""

    path: Path
    episodes: int
    """Written."""
    steps: int
    """Written."""
    tried: int
    """Episodes played of which those were taken, in order."""
    successes: int
    """Of the episodes played."""
    seconds: float
    """Wall clock of this call, compiling included."""
    resumed_steps: int = 0
    """Of `steps`, those that an earlier call had written."""

    @property
    def steps_per_second(self) -> float:
        """Written by this call."""
        return (self.steps - self.resumed_steps) / self.seconds


@flax.struct.dataclass
class _Played:
    """Episodes [n, ...], T = horizon steps each; what comes after the end has no meaning."""

    obs: jax.Array
    """[n, T+1, *O]."""
    action: jax.Array
    """[n, T, *A]."""
    reward: jax.Array
    """[n, T]."""
    goal: jax.Array
    """[n, T], before each action."""
    progress: jax.Array
    """[n, T], before each action."""
    length: jax.Array
    """[n] steps."""
    success: jax.Array
    """[n] bool, at the end."""


def record(
    policy: Policy | str,
    world: World,
    path: str | Path,
    episodes: int,
    seed: int,
    horizon: int | None = None,
    *,
    successes_only: bool = False,
    chunk: int = 256,
    most_tries: int = 100,
    resume: bool = False,
) -> Recording:
    """Write `episodes` episodes of a policy into a new folder.

    If the world numbers goals, each step is labelled with `world.goal` and with the progress so far as its sub-goal.
    Actions are recorded as the world got them, clipped to the bounds.

    Args:
        policy: see `Policy`, or the reference of one, `path/to/file.py:NAME`.
        horizon: episodes end after this many steps at the latest; None: the world's.
        successes_only: leave out episodes that end without success.
        chunk: episodes played at once; together with `seed` it decides what is drawn.
        resume: save after every chunk, and go on from there if an earlier call for the same `path` was interrupted; the
            folder is then what it would have been.
        most_tries: with `successes_only`, play at most this many times as many episodes as wanted.

    Raises:
        UserError: `path` exists, what there is to resume was made otherwise, a number is wrong, the policy cannot be
            loaded, its actions are not the world's, or it succeeds too rarely.
    """
    for name, value in (("episodes", episodes), ("chunk", chunk), ("most_tries", most_tries)):
        if value < 1:
            raise UserError(f"{name} is {value}; allowed is 1 or more")
    horizon = world.horizon if horizon is None else horizon
    if not 1 <= horizon <= world.horizon:
        raise UserError(f"horizon is {horizon}; allowed: 1 to the world's, {world.horizon}")
    made_by: dict[str, Any] = {
        "by": "record",
        "policy": policy if isinstance(policy, str) else getattr(policy, "__qualname__", "policy"),
        "world": repr(world),
        "seed": seed,
        "horizon": horizon,
        "successes_only": successes_only,
        "chunk": chunk,
        "episodes": episodes,
    }
    act, reference = _loaded(policy)
    if reference:
        made_by["policy_sha256"] = references.fingerprint(reference)
    begin = time.perf_counter()
    play = jax.jit(lambda key: _play(act, world, key, chunk, horizon))
    with Writer(path, world.obs_spec, world.action_spec, made_by, resume=resume) as writer:
        before = writer.steps
        number, tried, successes = writer.position or (0, 0, 0)
        while writer.episodes < episodes:
            if tried >= most_tries * episodes:
                raise UserError(
                    f"{writer.episodes} of {tried} episodes ended with success; wanted: {episodes}. Is the policy good "
                    "enough for successes_only?"
                )
            played = _blamed(reference, play, jax.random.fold_in(jax.random.key(seed), number))
            number += 1
            for i in range(min(chunk, most_tries * episodes - tried)):
                if writer.episodes == episodes:
                    break
                tried += 1
                successes += bool(played.success[i])
                if played.success[i] or not successes_only:
                    writer.append(_episode(played, i, labelled=world.num_goals > 0))
            if resume:
                writer.save([number, tried, successes])
        steps = writer.steps
    seconds = time.perf_counter() - begin
    return Recording(writer.path, episodes, steps, tried, successes, seconds, before)


def _loaded(policy: Policy | str) -> tuple[Policy, str | None]:
    if not isinstance(policy, str):
        return policy, None
    try:
        return references.load_function(policy, "key", "obs", "state"), policy
    except ValueError as error:
        raise UserError(f"policy: {error}") from None


def _blamed(reference: str | None, play: Callable[[jax.Array], _Played], key: jax.Array) -> _Played:
    if reference is None:
        return jax.device_get(play(key))
    try:
        with references.blaming(reference):
            return jax.device_get(play(key))
    except ValueError as error:
        raise UserError(f"policy: {error}") from None


def _play(act: Policy, world: World, key: jax.Array, n: int, horizon: int) -> _Played:
    spec = world.action_spec
    key_start, key_steps = jax.random.split(key)
    start, _ = world.starts(key_start, n)
    state, first = jax.vmap(world.reset)(start)

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        state, obs, alive, success = carry
        keys = jax.random.split(key, (2, n))
        goal, progress = jax.vmap(world.goal)(state), jax.vmap(world.outcome)(state)["progress"]
        action = spec.executed(_as_action(world, jax.vmap(act)(keys[0], obs, state), n))
        state, seen = jax.vmap(world.step)(keys[1], state, action)
        success = jnp.where(alive, jax.vmap(world.outcome)(state)["success"], success)
        out = (seen.obs, action, seen.reward, goal, progress, alive)
        return (state, seen.obs, alive & ~seen.done, success), out

    alive = jnp.ones((n,), bool)
    begin = (state, first.obs, alive, jnp.zeros((n,), bool))
    (_, _, _, success), out = jax.lax.scan(step, begin, jax.random.split(key_steps, horizon))
    obs, action, reward, goal, progress, alive = (jnp.moveaxis(x, 0, 1) for x in out)
    return _Played(
        obs=jnp.concatenate([first.obs[:, None], obs], axis=1),
        action=action,
        reward=reward,
        goal=goal,
        progress=progress,
        length=jnp.sum(alive, axis=1),
        success=success,
    )


def _as_action(world: World, action: Any, n: int) -> jax.Array:
    spec = world.action_spec
    action, want = jnp.asarray(action), np.dtype(spec.dtype)
    if action.shape != (n, *spec.shape) or action.dtype.kind != want.kind:
        raise UserError(
            f"the policy's action is {action.dtype} {list(action.shape[1:])}; the world's is {want} {list(spec.shape)}"
        )
    return action.astype(want)


def _episode(played: _Played, i: int, labelled: bool) -> Episode:
    steps = int(played.length[i])
    return Episode(
        obs=played.obs[i, : steps + 1],
        action=played.action[i, :steps],
        goal=played.goal[i, :steps] if labelled else None,
        subgoal=played.progress[i, :steps] if labelled else None,
        reward=played.reward[i, :steps],
    )
