"""The contract of demonstrations: where batches of expert behaviour come from.

Letters: R rows, L tokens per row (the world's horizon), O observation, A action.
"""

from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


@flax.struct.dataclass
class EncoderView:
    """Trajectories as the encoder of discovery reads them where that is not the rows themselves, one per row."""

    obs: jax.Array
    """[R, V, *O]: o_1, …, o_{T+1}. The last one shows what the last action led to; `encoder_end` tells if it is valid."""
    valid: jax.Array
    """[R, V], False on padding."""
    token: jax.Array
    """[R, T] int32: the token of the view that stands for step t, its first where there are several."""


@flax.struct.dataclass
class Batch:
    """Token rows; all arrays start with [R, L]."""

    obs: jax.Array
    """o_t [R, L, *O]."""
    next_obs: jax.Array
    """o_{t+1} [R, L, *O]."""
    action: jax.Array
    """Expert action [R, L, *A]; int32 or float32."""
    goal: jax.Array
    """True active sub-goal, int32; -1 where unlabelled."""
    subgoal: jax.Array
    """Its index in the task, int32; -1 where unlabelled."""
    reset: jax.Array
    """First token of a trajectory."""
    valid: jax.Array
    """False on padding."""
    task: jax.Array
    """Index of the task the trajectory follows, int32; -1 where unlabelled."""
    source: PyTree = None
    """The trajectories that the rows come from, [R, ...], where a world's `view` needs them and rows hold one each."""
    view: EncoderView | None = None
    """What the encoder of discovery reads; None if it reads the rows themselves."""

    @property
    def goal_change(self) -> jax.Array:
        """[R, L] bool: the sub-goal index differs from the step before, the first step excluded."""
        before = jnp.pad(self.subgoal[:, :-1], ((0, 0), (1, 0)))
        return (self.subgoal != before) & self.valid & ~self.reset


@runtime_checkable
class Demonstrations(Protocol):
    """Batches of expert behaviour, drawn on the device inside the compiled training step.

    The object is frozen and hashable. Optional member `obs_statistics`: (mean, standard deviation) per observation
    number, tuples of floats; the base model then reads real-valued observations in these units.
    """

    @property
    def data(self) -> PyTree:
        """Arrays on the device, an argument of the compiled program; () if rows are generated."""
        ...

    def rows(
        self, data: PyTree, key: jax.Array, count: int, *, clean: bool
    ) -> tuple[Batch, dict[str, jax.Array]]:
        """Fresh rows, and scalars about them.

        Args:
            data: `self.data`, as the program got it.
            key: all randomness.
            count: R.
            clean: D* of discovery (ε = 0, mean actions): one trajectory per row, from its first step, padded on the
            right.
                Else the behaviour of pretraining, of which a row may hold several trajectories.
        """
        ...


@runtime_checkable
class HostDemonstrations(Protocol):
    """Demonstrations larger than the device: the training loop feeds a chunk of batches at a time, one copy per chunk."""

    def host_rows(self, seed: int, step: int, count: int, *, clean: bool) -> Batch:
        """NumPy rows of training step `step`, which depend on `seed` and `step` alone, so that a resumed run repeats
        them."""
        ...


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x over True entries of mask (same shape); 0 if there are none."""
    weight = mask.astype(x.dtype)
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def stacked(batches: list[Batch]) -> Batch:
    """NumPy batches along a new first axis."""
    return jax.tree.map(lambda *x: np.stack(x), *batches)
