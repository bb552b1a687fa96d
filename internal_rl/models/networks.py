"""Networks as pure functions: a static structure and plain nested dicts of arrays.

flax.nnx modules exist only while a function is traced; what the stages carry, differentiate, vmap over seeds and save
are dicts of arrays, so nothing of nnx runs in a loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

Params = Any
M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True)
class Network(Generic[M]):
    """A module's constructor and its static structure."""

    construct: Callable[[nnx.Rngs], M]
    structure: nnx.GraphDef

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters as a nested dict."""
        return nnx.to_pure_dict(nnx.split(self.construct(nnx.Rngs(params=key)), nnx.Param)[1])

    def bind(self, params: Params) -> M:
        """The module with these parameters; call it inside a traced function."""
        return nnx.merge(self.structure, params)


def make_network(construct: Callable[[nnx.Rngs], M]) -> Network[M]:
    """The network of a constructor. Finding its structure takes a second, so callers cache the result."""
    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    return Network(construct, nnx.split(shape, nnx.Param)[0])
