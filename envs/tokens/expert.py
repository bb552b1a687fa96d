"""The expert: it knows the task, writes its chunks in order and draws among their spellings token by token.

Letters: n texts, T steps (the world's horizon).
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from envs.tokens.writing import TokenState, Writing


@struct.dataclass
class Texts:
    """Texts of the expert, padded on the right after `length` steps; any leading shape.

    Attributes:
        obs: tokens o_1, …, o_{T+1}: the prompt, then what has been written; the pause in the padding.
        action: tokens said. In the reading steps and in the padding, the pause.
        goal: chunk under way or next at every step; the last one in the padding.
        subgoal: its index in the task.
        length: number of steps, reading included.
        task: index of the task.
    """

    obs: Int[Array, "*b T1"]  # T + 1
    action: Int[Array, "*b T"]
    goal: Int[Array, "*b T"]
    subgoal: Int[Array, "*b T"]
    length: Int[Array, "*b"]
    task: Int[Array, "*b"]


def say(
    world: Writing, state: TokenState, uniform: Float[Array, ""], clean: bool = False
) -> Int[Array, ""]:
    """The expert's next symbol: drawn among those with which the chunk under way can be completed, or with `clean`
    that one of them which stands first in the prompt. `uniform` in [0, 1) is all randomness."""
    allowed = jnp.asarray(world.language.grammar.allowed)[world.goal(state), state.node]
    passed = jnp.cumsum(allowed.astype(jnp.int32))  # [k]
    ways = passed[-1]
    drawn = jnp.minimum((uniform * ways.astype(jnp.float32)).astype(jnp.int32), ways - 1)
    # In integers, so that rounding never picks a symbol that is not allowed.
    return state.prompt[jnp.argmax(passed > (0 if clean else drawn))]


def generate(
    key: PRNGKeyArray, world: Writing, n: int, epsilon: float = 0.0, clean: bool = False
) -> Texts:
    """Write n texts, each with a fresh prompt and a uniformly drawn task. All shapes are static; call it inside `jit`.

    In the reading steps the expert pauses. If it said the coming symbol of the prompt instead, that symbol, which nobody
    can foresee, would be the first thing that codes of discovery describe.

    Args:
        key: all randomness.
        world: language, tasks and horizon.
        n: number of texts.
        epsilon: probability of a pause in place of each written token. No other token that is not the expert's leaves the
            text correct. Texts that take longer than the horizon are cut there.
        clean: choose the lowest position where several would do, instead of drawing.

    Raises:
        ValueError: n below 1, epsilon outside [0, 1].
    """
    if n < 1:
        raise ValueError(f"n={n}: allowed is 1 or more")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon={epsilon}: allowed is [0, 1]")
    key_start, key_say = jax.random.split(key)
    start, _ = world.starts(key_start, n)
    state, first = jax.vmap(world.reset)(start)
    pause = jnp.int32(world.language.pause)

    def act(state: TokenState, uniform: Float[Array, " 2"]) -> Int[Array, ""]:
        silent = (state.time < world.reading_steps) | (uniform[0] < epsilon)
        return jnp.where(silent, pause, say(world, state, uniform[1], clean))

    def step(carry, uniform):
        state, alive = carry
        goal = jax.vmap(world.goal)(state)
        action = jnp.where(alive, jax.vmap(act)(state, uniform), pause)
        # A step of the world is deterministic, so the key is not read.
        after, seen = jax.vmap(world.step, in_axes=(None, 0, 0))(key, state, action)
        record = (seen.obs, action, goal, state.progress, alive)
        return (after, alive & ~seen.terminated), record

    uniforms = jax.random.uniform(key_say, (world.horizon, n, 2))
    carry = (state, jnp.ones((n,), bool))
    _, records = jax.lax.scan(step, carry, uniforms)
    obs, action, goal, progress, alive = (x.T for x in records)
    last = jnp.asarray(world.tasks[1])[start[1]] - 1
    return Texts(
        obs=jnp.concatenate([first.obs[:, None], obs], axis=1),
        action=action,
        goal=goal,
        subgoal=jnp.minimum(progress, last[:, None]),
        length=jnp.sum(alive, axis=1, dtype=jnp.int32),
        task=start[1],
    )
