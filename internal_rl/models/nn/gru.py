"""The history encoder h_t = GRU(e_t, h_{t-1}) of the metacontroller (App. D.2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from internal_rl.models.nn.layers import dense, per_feature

ORTHOGONAL = nnx.initializers.orthogonal()


class GRUHistory(nnx.Module):
    """Gated recurrent unit on the contract of `Stack`, but [B, T, D] -> [B, T, H].

    r, u = σ(W e_t + b + V h_{t-1})              reset and update gates
    n = tanh(W_n e_t + b_n + r ⊙ (V_n h_{t-1} + c))
    h_t = (1 - u) ⊙ n + u ⊙ h_{t-1}

    The carry is h [B, H]; a segment starts from zero. The output at t is h_t: a reader that may
    only see the past has to shift it.
    """

    def __init__(self, in_features: int, hidden: int, rngs: nnx.Rngs, *, scale: float = 1.0):
        """`scale`: variance scaling of the input kernel. The recurrent ones are orthogonal."""
        if hidden < 1:
            raise ValueError(f"hidden = {hidden}: must be at least 1")
        self.input = dense(in_features, 3 * hidden, scale=scale, rngs=rngs)  # r, u, n
        gates = [ORTHOGONAL(rngs.params(), (hidden, hidden), jnp.float32) for _ in range(3)]
        self.recurrent_kernel = nnx.Param(jnp.concatenate(gates, axis=1))  # [H, 3H]
        self.candidate_bias = nnx.Param(jnp.zeros((hidden,), jnp.float32))
        self.hidden = hidden

    def init_carry(self, batch_shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jnp.zeros((*batch_shape, self.hidden), dtype)

    def __call__(
        self,
        x: jax.Array,
        carry: jax.Array | None = None,
        reset: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[jax.Array | None, jax.Array]:
        """x [B, T, D], reset and valid bool [B, T] -> (h_T [B, H] or None, h [B, T, H]).

        `valid` may have any pattern.
        """
        start = self.init_carry((x.shape[0],), x.dtype) if carry is None else carry

        def step(h, inputs):
            projected, reset_t, valid_t = inputs
            after = self._update(projected, h, reset_t)
            if valid_t is not None:
                after = jnp.where(valid_t[:, None], after, h)
            return after, after

        inputs = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), (self.input(x), reset, valid))
        last, h = lax.scan(step, start, inputs)
        return (None if carry is None else last), jnp.moveaxis(h, 0, 1)

    def step(
        self, x: jax.Array, carry: jax.Array, reset: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """x [B, D], reset bool [B] -> (h [B, H], h [B, H])."""
        h = self._update(self.input(x), carry, reset)
        return h, h

    def _update(self, projected, h, reset) -> jax.Array:
        """projected [B, 3H] = W e_t + b."""
        if reset is not None:
            h = jnp.where(reset[:, None], 0, h)
        # Full float32: errors of a recurrence compound over time.
        from_h = jnp.matmul(h, self.recurrent_kernel[...], precision=lax.Precision.HIGHEST)
        in_r, in_u, in_n = jnp.split(projected, 3, axis=-1)
        h_r, h_u, h_n = jnp.split(from_h, 3, axis=-1)
        r, u = jax.nn.sigmoid(in_r + h_r), jax.nn.sigmoid(in_u + h_u)
        n = jnp.tanh(in_n + r * (h_n + per_feature(self.candidate_bias, h)))
        return (1 - u) * n + u * h
