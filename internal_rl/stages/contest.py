"""Discovery by contest: several metacontrollers train side by side, and the best of them goes on. Not in the paper.

Which code a metacontroller settles on (the object to go to, or only how far away it is) depends on where it starts,
and the loss tells the two apart long before the schedule ends. All candidates live in one state along a leading axis
C. After `select_steps` the one with the lowest running loss moves into slot 0, and only slot 0 trains on.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from internal_rl.networks import Params
from internal_rl.stages.pretrain import TrainState

MEMORY = 0.99
"""Share of the running loss that is kept at each step: the contest is decided by about the last 100 steps."""

Update = Callable[[TrainState, Any], tuple[TrainState, dict]]


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

    def everyone(state: ContestState, frozen: Any) -> tuple[ContestState, dict]:
        count = state.loss.shape[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(state.key, jnp.arange(count))

        def one(candidate):
            return update_one(TrainState(state.step, *candidate), frozen)

        # One after the other: batched products of small matrices cost a CPU twice as much.
        new, metrics = jax.lax.map(one, (keys, state.params, state.opt_state))
        loss = MEMORY * state.loss + (1.0 - MEMORY) * metrics["loss"]
        loss = jnp.where(jnp.isnan(state.loss), metrics["loss"], loss)
        ahead = jnp.argmin(loss)
        metrics = jax.tree.map(lambda x: x[ahead], metrics)
        decided = state.step + 1 == select_steps

        def winner_first(x: jax.Array) -> jax.Array:
            return x.at[0].set(jnp.where(decided, x[ahead], x[0]))

        new = ContestState(
            state.step + 1,
            state.key,
            jax.tree.map(winner_first, new.params),
            jax.tree.map(winner_first, new.opt_state),
            loss,
        )
        return new, metrics | {"candidate": ahead.astype(loss.dtype)}

    def winner(state: ContestState, frozen: Any) -> tuple[ContestState, dict]:
        key = jax.random.fold_in(state.key, 0)
        params, opt_state = jax.tree.map(lambda x: x[0], (state.params, state.opt_state))
        one, metrics = update_one(TrainState(state.step, key, params, opt_state), frozen)

        def into_first(old: Any, new: Any) -> Any:
            return jax.tree.map(lambda x, y: x.at[0].set(y), old, new)

        new = ContestState(
            one.step,
            state.key,
            into_first(state.params, one.params),
            into_first(state.opt_state, one.opt_state),
            state.loss,
        )
        return new, metrics | {"candidate": jnp.zeros_like(state.loss[0])}

    def update(state: ContestState, frozen: Any) -> tuple[ContestState, dict]:
        return jax.lax.cond(state.step < select_steps, everyone, winner, state, frozen)

    return update


def winner_of(params: Params) -> Params:
    """Parameters without the axis C: slot 0, which is the winner's once the contest is decided."""
    return jax.tree.map(lambda x: x[0], params)
