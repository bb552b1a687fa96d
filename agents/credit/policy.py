"""Policies as pure functions of parameters and observations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from agents.credit.exact_models import state_index
from agents.credit.networks import mixed_log_policy, mlp, mlp_init
from agents.credit.trajectory import LogPolicy
from envs.credit.mdp import FiniteMDP


@dataclass(frozen=True)
class Policy:
    """`init(key)` -> parameters; `logits(params, obs [..., D])` -> [..., A]."""

    init: Callable[[PRNGKeyArray], Any]
    logits: Callable[[Any, Array], Array]

    def acting(self, params: Any, epsilon: float) -> LogPolicy:
        """log π of the ε-mixture (1 − ε) softmax + ε / A."""
        return lambda obs: mixed_log_policy(self.logits(params, obs), epsilon)


def mlp_policy(obs_dim: int, num_actions: int, width: int = 64) -> Policy:
    """The paper's: two hidden layers."""
    sizes = (obs_dim, width, width, num_actions)
    return Policy(init=lambda key: mlp_init(key, sizes), logits=mlp)


def tabular_policy(mdp: FiniteMDP) -> Policy:
    """One row of logits per state, uniform at first."""
    shape = (mdp.num_states, mdp.num_actions)

    def logits(params: Array, obs: Array) -> Array:
        rows = state_index(mdp, obs.reshape(-1, obs.shape[-1]))
        return params[rows].reshape(*obs.shape[:-1], shape[1])

    return Policy(init=lambda key: jnp.zeros(shape, jnp.asarray(mdp.start).dtype), logits=logits)
