"""The contract of base models: any sequence model that can be cut in two at a layer.

`SplitNetwork` is the static object (sizes, how to make weights); `bind(params, layer)` cuts it and gives a
`SplitModel`, on which stages compute. Weights do not depend on the cut. Letters: n sequences, T time, O observation, D
width.
"""

from typing import Any, Protocol, runtime_checkable

import jax

from agents.distributions import Distribution

Carry = Any
Outputs = Any
Params = Any


@runtime_checkable
class SplitModel(Protocol):
    """A base model with its weights, cut after `layer` blocks: obs → lower → e → upper → predictive distributions.

    Carries are pytrees of arrays of fixed shape, batch first. Without a carry a sequence starts fresh, and None is
    returned in its place. `reset` marks the first token of a trajectory: nothing from before reaches it or anything
    after it.
    """

    @property
    def width(self) -> int:
        """D, width of the residual stream."""
        ...

    def init_carry(self, batch: int) -> tuple[Carry, Carry]:
        """Fresh (lower, upper) carries."""
        ...

    def lower(
        self, obs: jax.Array, carry: Carry = None, reset: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Observations [n, T, *O] → residual stream e [n, T, D]."""
        ...

    def upper(
        self, e: jax.Array, carry: Carry = None, reset: jax.Array | None = None
    ) -> tuple[Carry, Outputs]:
        """Residual stream [n, T, D], controlled or not → parameters of the predictive distributions, a pytree."""
        ...

    def lower_step(
        self, obs: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """One token of `lower`: [n, *O] → [n, D]."""
        ...

    def upper_step(
        self, e: jax.Array, carry: Carry, reset: jax.Array | None = None
    ) -> tuple[Carry, Outputs]:
        """One token of `upper`: [n, D] → outputs [n, ...]."""
        ...

    def action_distribution(self, out: Outputs) -> Distribution:
        """p(a_t | o_1:t) of outputs with any leading shape."""
        ...

    def observation_log_prob(self, out: Outputs, next_obs: jax.Array) -> jax.Array:
        """log p(o_{t+1} | o_1:t) in nats, [...]."""
        ...


@runtime_checkable
class SplitNetwork(Protocol):
    """A base model without its weights; frozen and hashable.

    A user's own is made by a function (obs_spec, action_spec, max_len) → SplitNetwork; `max_len` is the most tokens
    that a cached rollout holds.
    """

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def depth(self) -> int:
        """L: cuts are 0 (the embedding) to L."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Fresh weights, a nested dict of arrays. An adopted model may ignore the key, and tell shapes only."""
        ...

    def bind(self, params: Params, layer: int) -> SplitModel:
        """The model with these weights, cut after `layer` blocks; called inside traced functions."""
        ...
