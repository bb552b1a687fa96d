"""Entropies that bound every base model and every metacontroller, computed exactly from the expert (spec section 8).

- `expert`: the expert's own entropy given its goal, from ties between shortest paths; what perfect steering pays.
- `bayes`: what a Bayes-optimal predictor pays that must infer the task from the behaviour so far.
"""

import jax
import jax.numpy as jnp

from envs.pinpad.expert import Trajectories, action_probs, generate, plan, task_length
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import Tasks


def oracle_nll(
    key: jax.Array, env: GridPinpad, tasks: Tasks, horizon: int, count: int, epsilon: float = 0.0
) -> dict[str, jax.Array]:
    """Monte-Carlo estimate over `count` fresh trajectories, in nats per step, with the mean trajectory length.

    The filter runs over all N tasks of the set; the prior is uniform over those that the layout and horizon allow.
    """
    trajectories, _ = generate(key, env, tasks, count, horizon, epsilon=epsilon)
    expert, bayes, valid = _per_step(env, tasks, horizon, trajectories, epsilon)
    return {
        "expert": _mean(expert, valid),
        "bayes": _mean(bayes, valid),
        "length": jnp.mean(trajectories.length.astype(jnp.float32)),
    }


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.sum(mask.astype(x.dtype))


def _per_step(env: GridPinpad, tasks: Tasks, limit: int, data: Trajectories, epsilon: float):
    """−log p of every expert action [B, T] given the task, and given the past only."""
    layout = Layout(objects=data.objects, walls=data.walls, agent=data.agent[:, 0])
    known = plan(layout, env.grid_size)
    sequences, lengths = tasks.sequences, tasks.lengths
    count, num_tasks = data.length.shape[0], sequences.shape[0]
    ids = jnp.broadcast_to(jnp.arange(num_tasks)[None], (count, num_tasks))
    solvable = jax.vmap(
        lambda i: task_length(known.distances, layout, tasks, i), in_axes=1, out_axes=1
    )(ids)
    log_weight = jnp.where(solvable <= limit, 0.0, -jnp.inf)
    per_task = jax.vmap(
        lambda agent, goal, last: action_probs(known, agent, goal, last, epsilon),
        in_axes=(None, 1, 1),
        out_axes=1,
    )

    def step(carry, inputs):
        log_weight, progress = carry
        agent, agent_next, action, active = inputs
        index = jnp.minimum(progress, lengths[None] - 1)
        goal = jnp.take_along_axis(sequences[None], index[..., None], axis=2)[..., 0]
        probs = per_task(agent, goal, index == lengths[None] - 1)  # [B, N, 4]
        taken = jnp.take_along_axis(probs, action[:, None, None], axis=2)[..., 0]
        taken = jnp.where(progress >= lengths[None], 0.0, taken)
        before = jax.nn.logsumexp(log_weight, axis=1)
        log_weight = jnp.where(active[:, None], log_weight + jnp.log(taken), log_weight)
        bayes = before - jax.nn.logsumexp(log_weight, axis=1)
        own = jnp.take_along_axis(taken, data.task[:, None], axis=1)[:, 0]
        target = jnp.take_along_axis(data.objects, goal, axis=1)
        entered = (target == agent_next[:, None]) & (agent_next != agent)[:, None]
        progress += (entered & active[:, None]).astype(progress.dtype)
        return (log_weight, progress), (-jnp.log(own), bayes)

    horizon = data.action.shape[1]
    valid = jnp.arange(horizon)[None] < data.length[:, None]
    inputs = (data.agent[:, :-1].T, data.agent[:, 1:].T, data.action.T, valid.T)
    start = (log_weight, jnp.zeros((count, num_tasks), jnp.int32))
    _, (expert, bayes) = jax.lax.scan(step, start, inputs)
    return jnp.where(valid, expert.T, 0.0), jnp.where(valid, bayes.T, 0.0), valid
