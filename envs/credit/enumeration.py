"""Every trajectory of a small `FiniteMDP`, with what the environment contributes to its probability.

Ground truth for means and variances of estimators: no sampling, no dynamic programming.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from envs.credit.mdp import FiniteMDP

_MAX_PATHS = 200_000


@struct.dataclass
class Paths:
    """N trajectories of T steps; after the end the state stays, action and reward are 0.

    Attributes:
        states: int[N, T + 1].
        actions: int[N, T].
        rewards: float[N, T].
        done: bool[N, T + 1]; done[:, t] says that the episode is over before step t.
        weight: float[N], product of start, transition and reward probabilities.
    """

    states: Any
    actions: Any
    rewards: Any
    done: Any
    weight: Any

    def probability(self, policy: Float[Array, "S A"]) -> Float[Array, " N"]:
        """Probability of each path when actions follow `policy`; sums to 1."""
        chosen = policy[jnp.asarray(self.states)[:, :-1], jnp.asarray(self.actions)]
        chosen = jnp.where(jnp.asarray(self.done)[:, :-1], 1.0, chosen)
        return jnp.asarray(self.weight).astype(policy.dtype) * jnp.prod(chosen, axis=1)


def enumerate_paths(mdp: FiniteMDP) -> Paths:
    """All trajectories from the start states over the horizon.

    Raises:
        ValueError: there are more than 200,000.
    """
    terminal, start = np.asarray(mdp.terminal), np.asarray(mdp.start)
    values = np.asarray(mdp.reward_values)
    branches = [_branches(mdp, s) for s in range(mdp.num_states)]
    count = np.array([len(rows) for rows, _ in branches])
    # One row per path: its state now, its weight, and its past.
    states = np.flatnonzero(start > 0)
    weight = start[states]
    past_states, past_actions, past_rewards = [states[:, None]], [], []
    for _ in range(mdp.horizon):
        if count[states].sum() > _MAX_PATHS:
            raise ValueError(f"more than {_MAX_PATHS} trajectories; enumeration needs fewer")
        row = np.repeat(np.arange(len(states)), count[states])
        chosen = np.concatenate([branches[s][0] for s in states])
        weight = weight[row] * np.concatenate([branches[s][1] for s in states])
        action, reward, states = chosen.T
        past_states = [p[row] for p in past_states] + [states[:, None]]
        past_actions = [p[row] for p in past_actions] + [action[:, None]]
        past_rewards = [p[row] for p in past_rewards] + [values[reward][:, None]]
    path_states = np.concatenate(past_states, axis=1)
    return Paths(
        states=path_states.astype(np.int32),
        actions=np.concatenate(past_actions, axis=1).astype(np.int32),
        rewards=np.concatenate(past_rewards, axis=1),
        done=terminal[path_states],
        weight=weight,
    )


def _branches(mdp: FiniteMDP, state: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (action, reward index, next state) that can follow on a state, and their weights."""
    joint = np.einsum(
        "ar,as->ars",
        np.asarray(mdp.reward_probs)[state],
        np.asarray(mdp.transition)[state],
    )
    if mdp.terminal[state]:
        joint[1:] = 0.0  # the action changes nothing any more: keep one of them
    return np.argwhere(joint > 0), joint[joint > 0]
