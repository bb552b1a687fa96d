"""Shortest-path expert of gridworld-pinpad, and trajectories of it (paper App. A)."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from envs.pinpad.gridworld import NUM_ACTIONS, GridPinpad
from envs.pinpad.layout import Layout, sample_layouts
from envs.pinpad.planning import (
    ENTERS,
    MOVES,
    OPTIMAL,
    SAFE,
    UNREACHABLE,
    Plan,
    distances,
    plan,
    task_length,
)
from envs.pinpad.tasks import Tasks, decode_tasks, minimum_moves

__all__ = [
    "UNREACHABLE",
    "Plan",
    "Trajectories",
    "action_probs",
    "check_solvable",
    "distances",
    "generate",
    "plan",
    "sample_solvable",
    "task_length",
]

MAX_ROUNDS = 10_000
"""Rounds of resampling before `sample_solvable` gives up on a layout."""

TieBreaking = Literal["uniform", "deterministic"]
TIE_BREAKING = ("uniform", "deterministic")


@struct.dataclass
class Trajectories:
    """Compact expert trajectories, padded on the right after `length` actions; any leading shape.

    Attributes:
        objects, walls: cells of the layout.
        agent: the agent's cell before each of the H actions and after the last; repeated in the
            padding.
        action: actions, 0 in the padding.
        goal: colour to be visited next when the action is taken, 0 in the padding.
        subgoal: index of that colour in the task, 0 in the padding.
        length: number of actions.
        task: index of the task.
    """

    objects: Int[Array, "*b O"]
    walls: Int[Array, "*b W"]
    agent: Int[Array, "*b H1"]  # H + 1
    action: Int[Array, "*b H"]
    goal: Int[Array, "*b H"]
    subgoal: Int[Array, "*b H"]
    length: Int[Array, "*b"]
    task: Int[Array, "*b"]


# Layouts in which the task can be solved


def sample_solvable(
    key: PRNGKeyArray,
    n: int,
    env: GridPinpad,
    tasks: Tasks,
    task_ids: Int[Array, " n"],
    horizon: int,
) -> tuple[Layout, Float[Array, ""]]:
    """Uniform layouts in which task i can be solved within `horizon` steps, by rejection.

    Returns the layouts and the solvable fraction of *all* uniform layouts proposed on the way.
    Gives up after `MAX_ROUNDS` rounds and leaves elements without a usable layout; `generate`
    counts them as failures.

    Raises:
        ValueError: see `check_solvable`.
    """
    check_solvable(tasks, horizon)
    layout, _, fraction = _sample_solvable(key, n, env, tasks, task_ids, horizon)
    return layout, fraction


# Jitted for its own cache: a dozen programs contain it, and it is traced once for all of them.
@partial(jax.jit, static_argnames=("n", "env", "horizon"))
def _sample_solvable(
    key: Array, n: int, env: GridPinpad, tasks: Tasks, task_ids: Array, horizon: int
) -> tuple[Layout, Plan, Array]:
    """Layouts, their plans, and the solvable fraction."""

    def propose(key: Array, count: int, ids: Array) -> tuple[Layout, Plan, Array]:
        layout = sample_layouts(key, count, env.grid_size, env.num_objects, env.num_walls)
        known = plan(layout, env.grid_size)
        return layout, known, task_length(known.distances, layout, tasks, ids) <= horizon

    # Every round proposes to elements that still need a layout. Half a batch at a time, because
    # the last rounds are for few, and one loop body compiles faster than an extra first round.
    chunk = -(-n // 2)

    def unfinished(carry: Any) -> Array:
        _, _, solved, _, rounds = carry
        return ~jnp.all(solved) & (rounds < MAX_ROUNDS)

    def resample(carry: Any) -> Any:
        key, found, solved, proposed, rounds = carry
        key, round_key = jax.random.split(key)
        slots = jnp.nonzero(~solved, size=chunk, fill_value=n)[0].astype(jnp.int32)
        layout, known, success = propose(round_key, chunk, task_ids[jnp.minimum(slots, n - 1)])
        # Unfilled slots have the index n, which is out of bounds, so that the scatter drops them.
        put = lambda old, new: old.at[slots].set(new, mode="drop")  # noqa: E731
        found = jax.tree.map(put, found, (layout, known))
        proposed = proposed + jnp.sum(slots < n, dtype=jnp.int32)
        return key, found, put(solved, success), proposed, rounds + 1

    shapes = jax.eval_shape(lambda key: propose(key, n, task_ids)[:2], key)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = (key, nothing, jnp.zeros(n, bool), jnp.int32(0), jnp.int32(0))
    _, found, solved, proposed, _ = jax.lax.while_loop(unfinished, resample, carry)
    fraction = jnp.sum(solved, dtype=jnp.float32) / proposed.astype(jnp.float32)
    return *found, fraction


def check_solvable(tasks: Tasks, horizon: int) -> None:
    """Raise if a task cannot be solved within the horizon in any layout (see `minimum_moves`).

    Nothing is checked when `tasks` is traced; so call it before `jit`.

    Raises:
        ValueError: naming the horizon, the task and the shortest horizon that is allowed.
    """
    if isinstance(tasks.sequences, Tracer):
        return
    for task in decode_tasks(tasks):
        needed = minimum_moves(task)
        if horizon < needed:
            raise ValueError(
                f"horizon={horizon}: task {task} takes at least {needed} moves in any layout; "
                f"allowed is {needed} or more"
            )


# The policy


def action_probs(
    plan: Plan,
    agent: Int[Array, "*b"],
    goal: Int[Array, "*b"],
    last: Bool[Array, "*b"],
    epsilon: float | Float[Array, ""] = 0.0,
    tie_breaking: TieBreaking = "uniform",
) -> Float[Array, "*b 4"]:
    """Expert's action distribution in cell `agent` when colour `goal` is next.

    Args:
        plan: of the layouts, with the same leading shape as `agent`.
        last: goal is the last colour of the task, so that entering it ends the episode.
        epsilon: probability of replacing the action by a uniform one among those that do not end
            the episode.
        tie_breaking: "uniform" over the optimal actions, or "deterministic": the lowest of them.

    Only random actions can lead to where the goal cannot be reached; the expert then acts like the
    random part. Where every action ends the episode, the random part acts like the expert. Where
    both hold (a pocket between wrong colours), all actions are equally likely.

    Raises:
        ValueError: unknown tie_breaking, epsilon outside [0, 1].
    """
    _check_policy(epsilon, tie_breaking)
    greedy, random = _action_sets(_moves_at(plan, agent, goal), last, tie_breaking)
    mix = jnp.float32(epsilon)
    return (1 - mix) * _uniform(greedy) + mix * _uniform(random)


def _moves_at(plan: Plan, agent: Array, goal: Array) -> Array:
    cells = plan.moves.shape[-1]
    flat = plan.moves.reshape(*plan.moves.shape[:-2], -1)
    return jnp.take_along_axis(flat, (goal * cells + agent)[..., None], axis=-1)[..., 0]


def _action_sets(moves: Array, last: Array, tie_breaking: TieBreaking) -> tuple[Array, Array]:
    """Bit masks of the expert's actions and of its random replacements; neither is empty."""
    optimal = (moves >> OPTIMAL) & 0xF
    lasting = (moves >> SAFE) & ~jnp.where(last, moves >> ENTERS, 0) & 0xF
    lasting = jnp.where(lasting == 0, optimal, lasting)
    lasting = jnp.where(lasting == 0, 0xF, lasting)  # between wrong colours only
    if tie_breaking == "deterministic":
        optimal = optimal & -optimal
    return jnp.where(optimal == 0, lasting, optimal), lasting


def _uniform(mask: Array) -> Array:
    """Bit mask to a uniform distribution over its actions."""
    actions = jnp.arange(NUM_ACTIONS, dtype=jnp.int32).reshape((1,) * mask.ndim + (-1,))
    member = ((mask[..., None] >> actions) & 1).astype(jnp.float32)
    return member / jnp.sum(member, axis=-1, keepdims=True)


def _pick(mask: Array, uniform: Array) -> Array:
    """Uniform action of the mask. In integers, so that rounding never picks one outside of it."""
    count = jax.lax.population_count(mask)
    k = jnp.minimum((uniform * count.astype(jnp.float32)).astype(jnp.int32), count - 1)
    up, down, left = mask & 1, (mask >> 1) & 1, (mask >> 2) & 1
    # The k-th action is the number of actions that leave at most k behind them.
    passed = jnp.stack([k >= up, k >= up + down, k >= up + down + left])
    return jnp.sum(passed, axis=0, dtype=jnp.int32)


def _check_policy(epsilon: Any, tie_breaking: str) -> None:
    if tie_breaking not in TIE_BREAKING:
        raise ValueError(f"tie_breaking={tie_breaking!r}: allowed are {', '.join(TIE_BREAKING)}")
    if isinstance(epsilon, int | float) and not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon={epsilon}: allowed is [0, 1]")


# Trajectories


def generate(
    key: PRNGKeyArray,
    env: GridPinpad,
    tasks: Tasks,
    n: int,
    horizon: int,
    epsilon: float | Float[Array, ""] = 0.0,
    tie_breaking: TieBreaking = "uniform",
) -> tuple[Trajectories, dict[str, Array]]:
    """Roll the expert out in n fresh solvable layouts, each with a uniformly drawn task.

    All shapes are static; call it inside `jit`.

    Returns:
        Trajectories [n], and scalars: `solvable_fraction` of the proposed layouts, `success`
        fraction of the trajectories that solve their task in time (1 when ε = 0), and
        `mean_length` in steps.

    Raises:
        ValueError: epsilon, tie_breaking, n or horizon out of range (see `check_solvable`).
    """
    _check_policy(epsilon, tie_breaking)
    if n < 1:
        raise ValueError(f"n={n}: allowed is 1 or more")
    check_solvable(tasks, horizon)
    task_key, layout_key, action_key = jax.random.split(key, 3)
    task = jax.random.randint(task_key, (n,), 0, tasks.lengths.shape[0], jnp.int32)
    layout, known, fraction = _sample_solvable(layout_key, n, env, tasks, task, horizon)
    uniforms = jax.random.uniform(action_key, (horizon, 2, n))
    trajectories, success = _rollout(
        uniforms, tasks, task, layout, known, env.grid_size, jnp.float32(epsilon), tie_breaking
    )
    stats = {
        "solvable_fraction": fraction,
        "success": jnp.mean(success, dtype=jnp.float32),
        "mean_length": jnp.mean(trajectories.length, dtype=jnp.float32),
    }
    return trajectories, stats


@partial(jax.jit, static_argnames=("grid_size", "tie_breaking"))
def _rollout(
    uniforms: Float[Array, "H 2 n"],
    tasks: Tasks,
    task: Int[Array, " n"],
    layout: Layout,
    known: Plan,
    grid_size: int,
    epsilon: Float[Array, ""],
    tie_breaking: TieBreaking,
) -> tuple[Trajectories, Bool[Array, " n"]]:
    """One scan over the horizon. The plan's bits stand for the env, which a test replays."""
    sequences, lengths = tasks.sequences[task], tasks.lengths[task]
    offsets = jnp.array([-grid_size, grid_size, -1, 1], jnp.int32)

    def step(carry: tuple[Array, Array, Array], uniform: Array) -> tuple[Any, Any]:
        agent, progress, wrong = carry
        active = (progress < lengths) & ~wrong
        subgoal = jnp.minimum(progress, lengths - 1)
        goal = jnp.take_along_axis(sequences, subgoal[:, None], axis=1)[:, 0]
        moves = _moves_at(known, agent, goal)
        greedy, random = _action_sets(moves, subgoal == lengths - 1, tie_breaking)
        action = _pick(jnp.where(uniform[0] < epsilon, random, greedy), uniform[1])
        does = moves >> action  # bit k: does the action taken do k?
        agent = jnp.where(active, agent + ((does >> MOVES) & 1) * offsets[action], agent)
        progress = jnp.where(active, progress + ((does >> ENTERS) & 1), progress)
        wrong = wrong | (active & ((does >> SAFE) & 1 == 0))
        outputs = (jnp.where(active, x, 0) for x in (action, goal, subgoal))
        return (agent, progress, wrong), (agent, *outputs, active)

    start = (layout.agent, jnp.zeros_like(task), jnp.zeros_like(task, dtype=bool))
    (_, progress, _), outputs = jax.lax.scan(step, start, uniforms)
    agent, action, goal, subgoal, active = (x.T for x in outputs)  # [n, H]
    trajectories = Trajectories(
        objects=layout.objects,
        walls=layout.walls,
        agent=jnp.concatenate([layout.agent[:, None], agent], axis=1),
        action=action,
        goal=goal,
        subgoal=subgoal,
        length=jnp.sum(active, axis=1, dtype=jnp.int32),
        task=task,
    )
    return trajectories, progress >= lengths
