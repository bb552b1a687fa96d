"""A world's shapes against its specs, without computing anything: what every stage asks before it compiles.

`envs.check.check_world` plays episodes and finds much more.
"""

from typing import Any

import jax
import jax.numpy as jnp

from envs.adapter import TimeStep
from envs.world import ActionSpec, ObservationSpec, World

MEMBERS = (
    *("obs_spec", "action_spec", "horizon", "num_goals"),
    *("starts", "reset", "step", "goal", "outcome"),
)


def shape_problems(world: Any) -> list[str]:
    """Problems, one line each: what was found and what is expected; none if all shapes are right. Never raises."""
    missing = [name for name in MEMBERS if not hasattr(world, name)]
    if missing:
        return [f"it lacks {', '.join(missing)}; expected are the members of envs.world.World"]
    for name, kind in (("obs_spec", ObservationSpec), ("action_spec", ActionSpec)):
        if not isinstance(getattr(world, name), kind):
            found = type(getattr(world, name)).__name__
            return [f"{name} is a {found}; expected is an envs.world.{kind.__name__}"]
    for name, least in (("horizon", 1), ("num_goals", 0)):
        value = getattr(world, name)
        if not isinstance(value, int) or value < least:
            return [f"{name} is {value!r}; expected is an integer of at least {least}"]
    try:
        hash(world)
    except TypeError as error:
        return [f"it is not hashable ({error}); expected is a frozen object"]
    try:
        return _traced(world)
    except _Wrong as wrong:
        return [str(wrong)]


class _Wrong(Exception):
    """The one line that says what is wrong."""


def _traced(world: World) -> list[str]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    start, _ = _call("starts", lambda key: world.starts(key, 2), key)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), start)
    state, first = _call("reset", world.reset, one)
    action = jax.ShapeDtypeStruct(world.action_spec.shape, jnp.dtype(world.action_spec.dtype))
    after, step = _call("step", world.step, key, state, action)
    problems = [*_of_step("reset", first, world.obs_spec), *_of_step("step", step, world.obs_spec)]
    if jax.tree.structure(state) != jax.tree.structure(after):
        problems.append(
            f"step: the state is {jax.tree.structure(after)}; expected is that of reset, {jax.tree.structure(state)}"
        )
        return problems
    pairs = zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            problems.append(
                f"step: state{jax.tree_util.keystr(path)} is {_text(new)}; expected is {_text(old)}, as after reset"
            )
    goal = _call("goal", world.goal, state)
    if (goal.shape, goal.dtype) != ((), jnp.int32):
        problems.append(f"goal: it is {_text(goal)}; expected is int32 []")
    outcome = _call("outcome", world.outcome, state)
    expected = {"success": jnp.bool_, "progress": jnp.int32}
    if set(outcome) != set(expected):
        problems.append(f"outcome: it has {', '.join(outcome)}; expected are success and progress")
        return problems
    for name, dtype in expected.items():
        if (outcome[name].shape, outcome[name].dtype) != ((), dtype):
            wanted = jnp.dtype(dtype).name
            problems.append(f"outcome: {name} is {_text(outcome[name])}; expected is {wanted} []")
    return problems


def _call(name: str, function: Any, *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:  # whatever a user's code raises is what is wrong with it
        first = str(error).strip().partition("\n")[0]
        raise _Wrong(f"{name} raised {type(error).__name__}: {first}") from error


def _of_step(name: str, step: Any, spec: ObservationSpec) -> list[str]:
    if not isinstance(step, TimeStep):
        return [f"{name}: it gives a {type(step).__name__}; expected is an envs.adapter.TimeStep"]
    wanted = {
        "obs": (spec.shape, spec.dtype),
        "reward": ((), jnp.float32),
        "terminated": ((), jnp.bool_),
        "truncated": ((), jnp.bool_),
        "final_obs": (spec.shape, spec.dtype),
    }
    problems = []
    for field, (shape, dtype) in wanted.items():
        value = getattr(step, field)
        found = (getattr(value, "shape", None), getattr(value, "dtype", None))
        if found != (shape, jnp.dtype(dtype)):
            expected = f"{jnp.dtype(dtype).name} {list(shape)}"
            by = " by obs_spec" if "obs" in field else ""
            problems.append(f"{name}: {field} is {_text(value)}; expected is {expected}{by}")
    return problems


def _text(value: Any) -> str:
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{value.dtype} {list(value.shape)}"
