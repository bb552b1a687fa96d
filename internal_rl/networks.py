"""Networks as pure functions: a static structure and plain nested dicts of arrays.

flax.nnx modules exist only while a function is traced; what the stages carry, differentiate, vmap over seeds and save
are dicts of arrays, so nothing of nnx runs in a loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from agents.distributions import ActionSpec
from internal_rl.base_model import BaseModel, ObservationSpec
from internal_rl.config import Config
from internal_rl.metacontroller import Metacontroller
from internal_rl.policy import AbstractPolicy

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


# The three networks are cached, because finding a structure takes a second and every program asks for it again.
_per_config = lru_cache(maxsize=64)


def _network(construct: Callable[[nnx.Rngs], M]) -> Network[M]:
    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    return Network(construct, nnx.split(shape, nnx.Param)[0])


@_per_config
def base_network(config: Config, obs: ObservationSpec, action: ActionSpec) -> Network[BaseModel]:
    """The base model of a config."""
    max_len = config.env.horizon + 1
    return _network(lambda rngs: BaseModel(config.model, obs, action, max_len=max_len, rngs=rngs))


@_per_config
def metacontroller_network(config: Config) -> Network[Metacontroller]:
    """The metacontroller of a config."""
    width = config.model.width
    return _network(lambda rngs: Metacontroller(config.metacontroller, width, rngs=rngs))


@_per_config
def policy_network(config: Config) -> Network[AbstractPolicy]:
    """The abstract-action policy of a config."""
    width = config.model.width
    return _network(
        lambda rngs: AbstractPolicy(config.reinforce, config.metacontroller, width, rngs=rngs)
    )
