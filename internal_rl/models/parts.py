"""The networks that the stages compute with, cut and sized for each other."""

from dataclasses import dataclass

from internal_rl.models.contract import Params, SplitModel, SplitNetwork
from internal_rl.models.metacontroller import Metacontroller
from internal_rl.models.networks import Network
from internal_rl.models.policy import AbstractPolicy


@dataclass(frozen=True)
class Models:
    """Base model, metacontroller and abstract policy as static structures."""

    base: SplitNetwork
    layer: int
    """l: the base model is cut after this many blocks."""
    meta: Network[Metacontroller]
    policy: Network[AbstractPolicy]
    code_dim: int

    def bind_base(self, params: Params) -> SplitModel:
        """The base model with these weights, cut at `layer`; called inside traced functions, as the next two."""
        return self.base.bind(params, self.layer)

    def bind_meta(self, params: Params) -> Metacontroller:
        """The metacontroller with these weights."""
        return self.meta.bind(params)

    def bind_policy(self, params: Params) -> AbstractPolicy:
        """π(z | e) with these weights."""
        return self.policy.bind(params)
