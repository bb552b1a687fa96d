"""Hindsight coefficients of states: every step with every later one, T² / 2 pairs of a trajectory.

Steps are taken in blocks, and a tile pairs a block with one of the same or later steps. On a CPU a few
tiles at a time keep their hidden units in a core's cache, and episodes that show the same in all blocks of
these tiles share them (`agents.credit.distinct`). Letters: B episodes, T steps, A actions, D observation
entries, J tiles at a time, N steps of a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from agents.credit.distinct import distinct_value_and_grad, evaluate_distinct
from agents.credit.hindsight import counting_steps, hypernetwork
from agents.credit.model import one_at_a_time
from agents.credit.networks import Params
from agents.credit.trajectory import Trajectory

_BLOCK = 8  # steps: more of them pair more steps with earlier ones, fewer are slower to compute


@dataclass(frozen=True)
class Tiles:
    """All tiles of a trajectory, J at a time.

    Attributes:
        row, column: int[Q, J], blocks of the earlier and of the later steps.
        later: bool[Q, J, N, N], whether that step of the column's block comes after that of the row's.
            None does in a tile that only fills the last J, nor after the trajectory's end.
    """

    row: Int[np.ndarray, "Q J"]
    column: Int[np.ndarray, "Q J"]
    later: Bool[np.ndarray, "Q J N N"]


def make_tiles(steps: int, block: int, at_once: int) -> Tiles:
    """Tiles of `steps` steps.

    Args:
        block: N, steps of a block.
        at_once: J at most.
    """
    blocks = -(-steps // block)
    # By columns: episodes that differ at their end only, as those with and without a treasure do, then
    # differ in the last tiles only.
    pairs = [(row, column) for column in range(blocks) for row in range(column + 1)]
    at_once = -(-len(pairs) // -(-len(pairs) // at_once))  # as many in each step of a loop, nearly
    missing = -len(pairs) % at_once
    row, column = np.array(pairs + [(0, 0)] * missing).T
    times = np.arange(block)
    earlier, later = row[:, None] * block + times, column[:, None] * block + times
    allowed = (earlier[:, :, None] < later[:, None]) & (later < steps)[:, None]
    allowed[len(pairs) :] = False
    shape = (-1, at_once)
    return Tiles(row.reshape(shape), column.reshape(shape), allowed.reshape(*shape, block, block))


def value_and_grad_of_pairs(
    loss: Callable[[Array, Array, Array], Array],
    params: Params,
    batch: Trajectory,
    mask_zero_reward: bool = False,
    block: int = _BLOCK,
    at_once: int | None = None,
) -> tuple[Float[Array, ""], Params]:
    """`loss` of all pairs of living steps, its mean over each trajectory's pairs and then over the batch.

    Args:
        loss: (x, log π, weights) -> sum over pairs, as `hindsight.classification_loss`.
        params: of `hindsight.hypernetwork`.
        batch: arrays with a leading axis [B].
        mask_zero_reward: only pairs whose later step pays.
        block, at_once: of `make_tiles`.

    Returns:
        the loss and its gradient.
    """
    steps = batch.action.shape[1]
    tiles = make_tiles(steps, block, at_once or _at_once())
    keep = counting_steps(batch, mask_zero_reward)
    # A step that is kept has as many pairs as steps before it.
    pairs = jnp.sum(keep * jnp.arange(steps, dtype=keep.dtype)[None], axis=1)
    share = keep / jnp.where(pairs > 0, pairs, 1.0)[:, None] / batch.action.shape[0]
    seen = (batch.obs[:, :-1], batch.log_policy, batch.taken, share)
    obs, log_policy, taken, share = jax.vmap(lambda x: _blocks(x, block))(seen)

    def tile_loss(params: Params, inputs: tuple[Array, Array, Array], weights: Array) -> Array:
        x = hypernetwork(params, *inputs)
        return jnp.sum(jax.vmap(loss)(x, inputs[2], weights))

    def sum_of_tiles(params: Params, seen: tuple[Array, ...]) -> tuple[Array, Params]:
        obs, log_policy, taken, share = seen

        def add(total: Any, tile: tuple[Array, Array, Array]) -> tuple[Any, None]:
            row, column, later = tile
            inputs = obs[:, row], obs[:, column], log_policy[:, row]
            weights = later[None] * share[:, column][:, :, None]
            weights = weights[..., None] * taken[:, row][:, :, :, None]
            found = distinct_value_and_grad(tile_loss, params, inputs, weights)
            return jax.tree.map(jnp.add, total, found), None

        kind = jnp.promote_types(share.dtype, params["heads"]["w"].dtype)
        nothing = jnp.zeros((), kind), jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(add, nothing, _arrays(tiles, share.dtype))[0]

    return one_at_a_time(sum_of_tiles)(params, (obs, log_policy, taken, share))


def contributions_of_pairs(
    ratio: Callable[[Array, Array], Array],
    params: Params,
    trajectory: Trajectory,
    block: int = _BLOCK,
    at_once: int | None = None,
) -> Float[Array, "T A"]:
    """Σ_{t' > t} w(S_t, a, S_t') R_t', w = h/π − 1: `estimators.contributions` of states.

    Args:
        ratio: (x, log π) -> h/π, as `hindsight.classification_ratio`.
        params, block, at_once: as in `value_and_grad_of_pairs`.
        trajectory: one; `vmap` batches.
    """
    steps = trajectory.action.shape[0]
    tiles = make_tiles(steps, block, at_once or _at_once())
    seen = trajectory.obs[:-1], trajectory.log_policy, trajectory.reward * trajectory.alive
    obs, log_policy, paid = _blocks(seen, block)

    def coefficients(params: Params, inputs: tuple[Array, Array, Array]) -> Float[Array, "J N N A"]:
        return jax.vmap(ratio)(hypernetwork(params, *inputs), inputs[2]) - 1.0

    def of_tiles(_: None, tile: tuple[Array, Array, Array]) -> tuple[None, Float[Array, "J N A"]]:
        row, column, later = tile
        w = evaluate_distinct(coefficients)(params, (obs[row], obs[column], log_policy[row]))
        credited = (later * paid[column][:, None])[..., None]
        # Pairs that do not count were never trained on, and may have any coefficient.
        return None, jnp.sum(jnp.where(credited != 0, w, 0.0) * credited, axis=2)

    _, found = jax.lax.scan(of_tiles, None, _arrays(tiles, paid.dtype))
    found = found.reshape(-1, *found.shape[2:])
    of_row = np.eye(obs.shape[0], dtype=np.float32)[tiles.row.reshape(-1)]
    of_row = jnp.asarray(of_row, found.dtype)
    summed = jnp.einsum("qr,qna->rna", of_row, found, precision="highest")
    return summed.reshape(-1, found.shape[-1])[:steps]


def _blocks(steps: Any, block: int) -> Any:
    """[T, ...] to [blocks, N, ...]; the last step fills the last block."""

    def split(x: Array) -> Array:
        fill = ((0, -x.shape[0] % block), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x, fill, mode="edge").reshape(-1, block, *x.shape[1:])

    return jax.tree.map(split, steps)


def _arrays(tiles: Tiles, dtype: Any) -> tuple[Array, Array, Array]:
    return jnp.asarray(tiles.row), jnp.asarray(tiles.column), jnp.asarray(tiles.later, dtype)


def _at_once() -> int:
    """Tiles: their hidden units fill a core's cache, or keep an accelerator busy."""
    return 7 if jax.default_backend() == "cpu" else 256
