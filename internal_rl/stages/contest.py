"""Discovery by contest: several metacontrollers train side by side, and the best of them goes on. Not in the paper.

Which code a metacontroller settles on (the object to go to, or only how far away it is) depends on where it starts,
and the loss tells the two apart long before the schedule ends. All candidates live in one state along a leading axis
C. After `select_steps` the one with the lowest running loss moves into slot 0, and only slot 0 trains on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from internal_rl.models.contract import Params
from internal_rl.stages.pretrain import TrainState

MEMORY = 0.99
"""Share of the running loss that is kept at each step: the contest is decided by about the last 100 steps."""

Update = Callable[..., tuple[TrainState, dict]]
"""(state, frozen[, fed batch]) → (state, metrics)."""


@flax.struct.dataclass
class ContestState:
    """State of C candidates; `params` and `opt_state` have a leading axis C."""

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any
    loss: jax.Array
    """Running loss [C]."""


def init(init_one: Callable[[jax.Array], TrainState], key: jax.Array, count: int) -> ContestState:
    """`count` candidates that start from keys of their own."""
    states = jax.vmap(init_one)(jax.random.split(key, count))
    return ContestState(
        jnp.int32(0), key, states.params, states.opt_state, jnp.full((count,), jnp.nan)
    )


def make_update(update_one: Update, select_steps: int) -> Callable:
    """`update_one` for all candidates until `select_steps`, then for the best of them alone.

    The metrics are those of the candidate that is ahead, with its number in `candidate` while the contest lasts and 0
    afterwards.
    """

    def update(state: ContestState, *arguments: Any) -> tuple[ContestState, dict]:
        count = state.loss.shape[0]
        lasts = state.step < select_steps

        def one(candidate: jax.Array, candidates: tuple) -> tuple[TrainState, dict]:
            own = _take(candidates, candidate)
            key = jax.random.fold_in(state.key, candidate)
            return update_one(TrainState(state.step, key, *own), *arguments)

        def step(candidate: jax.Array, carry: tuple) -> tuple:
            candidates, metrics = carry
            new, found = one(candidate, candidates)
            found = (new.params, new.opt_state), found
            return _put((candidates, metrics), candidate, found)

        # One after the other: batched products of small matrices cost a CPU twice as much. And in one loop of as many
        # rounds as there are candidates left: a choice between two would compile the step twice, and vmapped do both.
        candidates = state.params, state.opt_state
        shapes = jax.eval_shape(one, jnp.int32(0), candidates)[1]
        metrics = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shapes)
        rounds = jnp.where(lasts, count, 1)
        candidates, metrics = jax.lax.fori_loop(0, rounds, step, (candidates, metrics))

        loss = MEMORY * state.loss + (1.0 - MEMORY) * metrics["loss"]
        loss = jnp.where(jnp.isnan(state.loss), metrics["loss"], loss)
        loss = jnp.where(lasts, loss, state.loss)
        # A loss that is no number is the lowest to argmin.
        ahead = jnp.where(lasts, jnp.argmin(jnp.where(jnp.isnan(loss), jnp.inf, loss)), 0)
        decided = state.step + 1 == select_steps

        first = jnp.where(decided, ahead, 0)
        params, opt_state = _put(candidates, 0, _take(candidates, first))
        metrics = _take(metrics, ahead)
        new = ContestState(state.step + 1, state.key, params, opt_state, loss)
        return new, metrics | {"candidate": ahead.astype(loss.dtype)}

    return update


def _take(tree: Any, index: jax.Array | int) -> Any:
    # For every leaf x[i] would allow for an index that is negative or too large, which about doubles the program.
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _put(tree: Any, index: jax.Array | int, entry: Any) -> Any:
    put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
    return jax.tree.map(put, tree, entry)


def winner_of(params: Params) -> Params:
    """Parameters without the axis C: slot 0, which is the winner's once the contest is decided."""
    return jax.tree.map(lambda x: x[0], params)
