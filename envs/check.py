"""Whether a world keeps the contract of `envs.world`, for ours and a user's alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.world import ObservationSpec, World
from envs.world_shapes import shape_problems

EAGER_STEPS = 2
"""Steps that are repeated without vmap; the first one also without jit, which compiles every operation by itself."""


def check_world(world: Any, *, seed: int = 0, episodes: int = 16) -> list[str]:
    """Play a world at random; every problem is one line that says what was found and what is expected.

    Rules:
    - it has all members; specs, horizon and num_goals are of the right kind; it is hashable;
    - all shapes and dtypes are those of the specs, and the state keeps its own (`envs.world_shapes`);
    - observations are finite, tokens in range, one-hot blocks have a single one;
    - reset's and step's states are of the same type, so that nothing is compiled twice;
    - vmap and a loop, jit and no jit give the same; the same key gives the same, in `starts` and in `step`;
    - no episode is over at its reset; each is over after at most `horizon` steps; one that does not terminate is
    truncated;
    - rewards are finite, and among `reward_kinds` if there are any; stepping on after the end does not fail;
    - goals are -1 to num_goals - 1, and -1 where num_goals is 0; progress is at least 0; success ends an episode;
    - `draw` gives uint8 [H, W, 3], `name_goal` and `name_task` text, if they are there.

    Args:
        seed: of starts and actions.
        episodes: played with random actions, and again with the largest ones of bounded actions.

    Returns:
        Problems; none if all is well. Never raises because of the world.
    """
    problems = shape_problems(world)
    if problems:
        return problems
    try:
        trial = _Trial(world, seed, episodes)
        rules: tuple[Callable[[], list[str]], ...] = (
            trial.state_types,
            trial.starts_repeat,
            trial.steps_repeat,
            trial.observations,
            trial.ends,
            trial.rewards,
            trial.goals,
            trial.outcomes,
            trial.pictures,
            trial.names,
        )
        return [line for rule in rules for line in rule()]
    except Exception as error:  # whatever a user's world raises is what is wrong with it
        first = str(error).strip().partition("\n")[0]
        return [f"it raised {type(error).__name__}: {first}"]


@dataclass
class _Played:
    """Episodes [n, T + 1, ...] on the host: index 0 is the reset, t what step t led to."""

    state: Any
    obs: np.ndarray
    final_obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    goal: np.ndarray
    success: np.ndarray
    progress: np.ndarray

    @property
    def until_end(self) -> np.ndarray:
        """[n, T + 1] bool: up to and with the step that ended the episode."""
        done = self.terminated | self.truncated
        before = np.cumsum(done, axis=1) - done
        return before == 0


class _Trial:
    def __init__(self, world: World, seed: int, episodes: int):
        self.world, self.seed, self.n = world, seed, episodes
        self.key_start, self.key_action, self.key_step = jax.random.split(jax.random.key(seed), 3)
        self.start = jax.jit(lambda key: world.starts(key, episodes)[0])(self.key_start)
        kinds = ["random"] + (["largest", "smallest"] if world.action_spec.dim else [])
        self.played = {kind: self.play(kind) for kind in kinds}

    def actions(self, kind: str, key: jax.Array) -> jax.Array:
        spec = self.world.action_spec
        if spec.num_actions:
            return jax.random.randint(key, (self.n,), 0, spec.num_actions)
        if kind == "random":
            return jax.random.uniform(key, (self.n, spec.dim), minval=spec.low, maxval=spec.high)
        bound = spec.high if kind == "largest" else spec.low
        return jnp.full((self.n, spec.dim), bound, jnp.float32)

    def play(self, kind: str) -> _Played:
        world = self.world

        @jax.jit
        def run(start):
            state, first = jax.vmap(world.reset)(start)

            def seen(state, step):
                outcome = jax.vmap(world.outcome)(state)
                goal = jax.vmap(world.goal)(state)
                flags = (step.obs, step.final_obs, step.reward, step.terminated, step.truncated)
                return state, *flags, goal, outcome["success"], outcome["progress"]

            def one(state, t):
                action = self.actions(kind, jax.random.fold_in(self.key_action, t))
                keys = jax.random.split(jax.random.fold_in(self.key_step, t), self.n)
                state, step = jax.vmap(world.step)(keys, state, action)
                # A weak type is one thing to a loop and another to the next program; `state_types` tells.
                state = jax.tree.map(lambda new, old: new.astype(old.dtype), state, begin)
                return state, seen(state, step)

            begin = state
            _, later = jax.lax.scan(one, state, jnp.arange(world.horizon + 1))
            join = lambda a, b: jnp.concatenate([a[None], b])  # noqa: E731
            return jax.tree.map(join, seen(state, first), later)

        out = jax.device_get(run(self.start))
        return _Played(*jax.tree.map(lambda x: np.swapaxes(x, 0, 1), out))

    def one_start(self, i: int = 0) -> Any:
        return jax.tree.map(lambda x: x[i], self.start)

    # Rules

    def state_types(self) -> list[str]:
        world, spec = self.world, self.world.action_spec
        action = jnp.zeros(spec.shape, spec.dtype)
        state = jax.jit(world.reset)(self.one_start())[0]
        after = jax.jit(world.step)(self.key_step, state, action)[0]
        pairs = zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True)
        for (path, old), new in pairs:
            if jnp.asarray(old).weak_type != jnp.asarray(new).weak_type:
                return [
                    f"step: state{jax.tree_util.keystr(path)} is {'weakly' if new.weak_type else 'strongly'} typed; "
                    "expected is as after reset, or every first step is compiled twice (give both jnp.int32(0), not 0)"
                ]
        return []

    def starts_repeat(self) -> list[str]:
        world = self.world
        again = jax.jit(lambda key: world.starts(key, self.n)[0])(self.key_start)
        if not _same(self.start, again):
            return ["starts: the same key gave other starts; expected are the same"]
        scalars = world.starts(self.key_start, 2)[1]
        bad = [name for name, value in scalars.items() if jnp.shape(value) != ()]
        return (
            [f"starts: metric {bad[0]} has shape {jnp.shape(scalars[bad[0]])}; expected is []"]
            if bad
            else []
        )

    def steps_repeat(self) -> list[str]:
        world, played = self.world, self.played["random"]
        reset, step = jax.jit(world.reset), jax.jit(world.step)
        state, first = reset(self.one_start())
        if not np.allclose(first.obs, played.obs[0, 0], atol=1e-5):
            return ["reset: vmap gave another observation than a loop; expected is the same"]
        for t in range(min(EAGER_STEPS, world.horizon)):
            action = self.actions("random", jax.random.fold_in(self.key_action, t))[0]
            key = jax.random.split(jax.random.fold_in(self.key_step, t), self.n)[0]
            after, seen = step(key, state, action)
            if t == 0:
                plain = world.step(key, state, action)[1]
                if not np.allclose(plain.obs, seen.obs, atol=1e-5):
                    return [
                        "step: jit gave another observation than a plain call; expected is the same"
                    ]
                again = step(key, state, action)[1]
                if not np.array_equal(again.obs, seen.obs):
                    return ["step: the same key gave another observation; expected is the same"]
            for name in ("obs", "reward"):
                if not np.allclose(getattr(seen, name), getattr(played, name)[0, t + 1], atol=1e-5):
                    return [f"step: vmap gave another {name} than a loop; expected is the same"]
            state = after
        return []

    def observations(self) -> list[str]:
        for kind, played in self.played.items():
            for name, values in (("obs", played.obs), ("final_obs", played.final_obs)):
                line = _observation_problem(values[played.until_end], self.world.obs_spec)
                if line:
                    return [f"{name}: {line} (with {kind} actions)"]
        return []

    def ends(self) -> list[str]:
        horizon = self.world.horizon
        for kind, played in self.played.items():
            done = played.terminated | played.truncated
            if done[:, 0].any():
                return [
                    "reset: an episode is over at once; expected is neither terminated nor truncated"
                ]
            late = ~done[:, : horizon + 1].any(axis=1)
            if late.any():
                return [
                    f"step: {late.sum()} of {self.n} episodes with {kind} actions went on after {horizon} steps; "
                    f"expected is "
                    "truncated by then"
                ]
            early = played.truncated & ~played.terminated & played.until_end
            if early[:, :horizon].any():
                steps = int(np.argmax(early.any(axis=0)))
                return [
                    f"step: truncated after {steps} steps; expected is terminated where an episode ends by itself, "
                    f"truncated "
                    f"only at the horizon ({horizon})"
                ]
        return []

    def rewards(self) -> list[str]:
        kinds: tuple[float, ...] | None = getattr(self.world, "reward_kinds", None)
        for kind, played in self.played.items():
            paid = played.reward[played.until_end]
            if not np.isfinite(paid).all():
                return [
                    f"step: a reward is {paid[~np.isfinite(paid)][0]}; expected is a finite one"
                ]
            if played.reward[:, 0].any():
                return [f"reset: a reward is {played.reward[:, 0].max()}; expected is 0"]
            for value in np.unique(paid[paid != 0]):
                if kinds is not None and not np.isclose(value, kinds, atol=1e-4).any():
                    return [
                        f"step: a reward is {value:g} (with {kind} actions); expected is one of reward_kinds, {kinds}"
                    ]
        return []

    def goals(self) -> list[str]:
        most = self.world.num_goals - 1
        for played in self.played.values():
            goal = played.goal[played.until_end]
            if ((goal < -1) | (goal > most)).any():
                wrong = goal[(goal < -1) | (goal > most)][0]
                return [f"goal: it is {wrong}; expected is -1 to num_goals - 1 ({most})"]
        return []

    def outcomes(self) -> list[str]:
        for played in self.played.values():
            done = played.terminated | played.truncated
            if (played.progress < 0).any():
                return [f"outcome: progress is {played.progress.min()}; expected is at least 0"]
            over = np.cumsum(done, axis=1) > 0
            if (played.success & ~over).any():
                return [
                    "outcome: success is True while the episode goes on; expected is an end with it"
                ]
        return []

    def pictures(self) -> list[str]:
        draw = getattr(self.world, "draw", None)
        if draw is None:
            return []
        picture = draw(jax.tree.map(lambda x: x[0, 0], self.played["random"].state))
        found = getattr(picture, "dtype", None), np.ndim(picture), np.shape(picture)[-1:]
        if found != (np.uint8, 3, (3,)):
            shape = list(np.shape(picture))
            return [f"draw: it gives {found[0]} {shape}; expected is uint8 [H, W, 3]"]
        return []

    def names(self) -> list[str]:
        lines = []
        for member, count in (("name_goal", self.world.num_goals), ("name_task", 1)):
            name = getattr(self.world, member, None)
            if name is not None and count and not isinstance(name(0), str):
                lines.append(f"{member}: it gives a {type(name(0)).__name__}; expected is text")
        return lines


def _observation_problem(obs: np.ndarray, spec: ObservationSpec) -> str:
    if spec.num_tokens:
        wrong = obs[(obs < 0) | (obs >= spec.num_tokens)]
        return (
            f"a token is {wrong[0]}; expected is 0 to {spec.num_tokens - 1}" if wrong.size else ""
        )
    if not np.isfinite(obs).all():
        return f"a number is {obs[~np.isfinite(obs)][0]}; expected is a finite one"
    begin = 0
    for i, size in enumerate(spec.factor_sizes):
        block = obs[..., begin : begin + size]
        begin += size
        if not (np.isin(block, (0.0, 1.0)).all() and (block.sum(axis=-1) == 1.0).all()):
            return f"block {i} of {size} numbers has not a single one; expected is one-hot"
    return ""


def _same(a: Any, b: Any) -> bool:
    raw = lambda x: (  # noqa: E731
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(raw(x), raw(y)) for x, y in pairs)
