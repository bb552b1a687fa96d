"""`check_world` on worlds that are right, and on one broken world for every rule."""

import dataclasses
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapter import TimeStep
from envs.check import check_world
from envs.world import ActionSpec, ObservationSpec
from envs.world_shapes import MEMBERS, shape_problems

REALS, TOKENS = ObservationSpec(dim=2), ObservationSpec(num_tokens=4)
BLOCKS = ObservationSpec(dim=7, factor_sizes=(4, 3))
FORCE, LETTER = ActionSpec(dim=1, low=-1.0, high=1.0), ActionSpec(num_actions=4)


@flax.struct.dataclass
class State:
    place: jax.Array
    time: jax.Array


@dataclasses.dataclass(frozen=True)
class Walk:
    """A point on a line that walks to 2 or runs out of time. Every mistake below is one change of it."""

    horizon: int = 5
    num_goals: int = 1
    obs_spec: ObservationSpec = REALS
    action_spec: ActionSpec = FORCE
    reward_kinds = (1.0,)

    def starts(self, key, n):
        return jax.random.uniform(key, (n,)), {"share": jnp.float32(1)}

    def reset(self, start):
        state = State(start, jnp.int32(0))
        return state, self.seen(state)

    def step(self, key, state, action):
        state = State(state.place + action[0], state.time + 1)
        return state, self.seen(state)

    def seen(self, state):
        done = state.place >= 2.0
        obs = jnp.stack([state.place, state.time.astype(jnp.float32)])
        return TimeStep(obs, done.astype(jnp.float32), done, state.time >= self.horizon, obs, {})

    def goal(self, state):
        return jnp.int32(0)

    def outcome(self, state):
        return {"success": state.place >= 2.0, "progress": (state.place >= 2.0).astype(jnp.int32)}


@dataclasses.dataclass(frozen=True)
class Letters(Walk):
    """Tokens in, tokens out."""

    obs_spec: ObservationSpec = TOKENS
    action_spec: ActionSpec = LETTER

    def step(self, key, state, action):
        state = State(action.astype(jnp.float32), state.time + 1)
        return state, self.seen(state)

    def seen(self, state):
        step = super().seen(state)
        token = jnp.clip(state.place, 0.0, 3.0).astype(jnp.int32)
        return dataclasses.replace(step, obs=token, final_obs=token)


@dataclasses.dataclass(frozen=True)
class Blocks(Letters):
    """One-hot blocks in."""

    obs_spec: ObservationSpec = BLOCKS

    def seen(self, state):
        step = super().seen(state)
        obs = jnp.concatenate([jax.nn.one_hot(step.obs, 4), jax.nn.one_hot(jnp.int32(0), 3)])
        return dataclasses.replace(step, obs=obs, final_obs=obs)


@pytest.mark.parametrize("world", [Walk(), Letters(), Blocks()], ids=lambda w: type(w).__name__)
def test_worlds_that_are_right(world):
    assert check_world(world) == []


def broken(base=Walk, **members):
    """`base` with other members, as a frozen dataclass."""
    made = type("Broken", (base,), members)
    return dataclasses.dataclass(frozen=True)(made)()


def seen_with(base=Walk, **change):
    def seen(self, state):
        step = base.seen(self, state)
        return dataclasses.replace(step, **{n: f(self, state, step) for n, f in change.items()})

    return {"seen": seen}


def stateful(self, key, state, action):
    # What a call leaves behind shows up in the next one.
    calls.append(0)
    state = State(state.place + action[0] + 0.25 * len(calls), state.time + 1)
    return state, self.seen(state)


calls: list[int] = []

MISTAKES = {
    "it lacks outcome; expected are the members": types.SimpleNamespace(
        **{name: getattr(Walk(), name) for name in MEMBERS if name != "outcome"}
    ),
    "obs_spec is a tuple; expected is an envs.world.ObservationSpec": Walk(obs_spec=(2,)),
    "horizon is 0; expected is an integer of at least 1": Walk(horizon=0),
    "num_goals is -1; expected is an integer of at least 0": Walk(num_goals=-1),
    "starts raised ZeroDivisionError: division by zero": broken(starts=lambda self, key, n: n / 0),
    "step: obs is float32 [3]; expected is float32 [2] by obs_spec": broken(
        **seen_with(obs=lambda w, s, t: jnp.zeros(3), final_obs=lambda w, s, t: t.obs)
    ),
    "step: reward is int32 []; expected is float32 []": broken(
        **seen_with(reward=lambda w, s, t: jnp.int32(0))
    ),
    "step: terminated is float32 []; expected is bool []": broken(
        **seen_with(terminated=lambda w, s, t: t.reward)
    ),
    "step: state.place is float32 [1]; expected is float32 [], as after reset": broken(
        step=lambda self, key, state, action: (
            State(state.place + action, state.time + 1),
            self.seen(State(state.place, state.time + 1)),
        )
    ),
    "goal: it is float32 []; expected is int32 []": broken(goal=lambda self, state: state.place),
    "outcome: it has success; expected are success and progress": broken(
        outcome=lambda self, state: {"success": state.place > 2.0}
    ),
    "outcome: progress is float32 []; expected is int32 []": broken(
        outcome=lambda self, state: {"success": state.place > 2.0, "progress": state.place}
    ),
    "step: state.time is strongly typed; expected is as after reset": broken(
        reset=lambda self, start: (
            State(start, jnp.asarray(0)),
            self.seen(State(start, jnp.int32(0))),
        ),
        step=lambda self, key, state, action: (
            State(state.place + action[0], state.time + jnp.int32(1)),
            self.seen(State(state.place + action[0], state.time + jnp.int32(1))),
        ),
    ),
    "starts: metric share has shape (3,); expected is []": broken(
        starts=lambda self, key, n: (jax.random.uniform(key, (n,)), {"share": jnp.zeros(3)})
    ),
    "obs: a number is nan; expected is a finite one": broken(
        **seen_with(obs=lambda w, s, t: jnp.where(s.time > 2, jnp.nan, t.obs))
    ),
    "obs: a token is 7; expected is 0 to 3": broken(
        Letters, **seen_with(Letters, obs=lambda w, s, t: jnp.where(s.time > 1, 7, t.obs))
    ),
    "obs: block 0 of 4 numbers has not a single one; expected is one-hot": broken(
        Blocks, **seen_with(Blocks, obs=lambda w, s, t: jnp.where(s.time > 1, 0.0, t.obs))
    ),
    "reset: an episode is over at once": broken(
        **seen_with(terminated=lambda w, s, t: jnp.bool_(True))
    ),
    "went on after 5 steps; expected is truncated by then": broken(
        **seen_with(truncated=lambda w, s, t: s.time >= 50)
    ),
    "step: truncated after 3 steps; expected is terminated where an episode ends by itself": broken(
        **seen_with(truncated=lambda w, s, t: s.time >= 3)
    ),
    "step: a reward is inf; expected is a finite one": broken(
        **seen_with(reward=lambda w, s, t: jnp.where(s.time > 2, jnp.inf, t.reward))
    ),
    "reset: a reward is 0.5; expected is 0": broken(
        **seen_with(reward=lambda w, s, t: jnp.where(s.time > 0, t.reward, 0.5))
    ),
    "step: a reward is 0.25 (with random actions); expected is one of reward_kinds, (1.0,)": broken(
        **seen_with(reward=lambda w, s, t: jnp.where(s.time == 1, 0.25, t.reward))
    ),
    "goal: it is 3; expected is -1 to num_goals - 1 (0)": broken(goal=lambda self, s: jnp.int32(3)),
    "goal: it is 0; expected is -1 to num_goals - 1 (-1)": Walk(num_goals=0),
    "outcome: progress is -1; expected is at least 0": broken(
        outcome=lambda self, s: {"success": s.place >= 2.0, "progress": jnp.int32(-1)}
    ),
    "outcome: success is True while the episode goes on": broken(
        outcome=lambda self, s: {"success": s.time > 1, "progress": s.time}
    ),
    "draw: it gives float64 [4, 4]; expected is uint8 [H, W, 3]": broken(
        draw=lambda self, state: np.zeros((4, 4))
    ),
    "name_goal: it gives a int; expected is text": broken(name_goal=lambda self, i: i),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(says):
    problems = check_world(MISTAKES[says])
    assert problems
    assert any(says in line for line in problems), problems
    assert all("\n" not in line for line in problems)


def test_a_world_that_remembers_calls_is_found():
    calls.clear()
    problems = check_world(broken(step=stateful))
    assert any("gave another" in line for line in problems), problems


def test_one_that_cannot_be_hashed_is_found():
    loose = type("Loose", (Walk,), {"__hash__": None})()
    assert shape_problems(loose)[0].startswith("it is not hashable")
