"""Random small MDPs and policies for property tests; plain numpy, float64."""

import jax
import numpy as np
from hypothesis import strategies as st

from envs.credit.mdp import FiniteMDP, check_mdp


def random_mdp(seed, levels=2, width=2, actions=2, rewards=(0.0, 1.0, -2.0), last_only=False):
    """A layered MDP: states of level i lead to random states of level i + 1, some early to the end.

    With `last_only` only the last level pays.
    """
    rng = np.random.default_rng(seed)
    sizes = [1] + [width] * (levels - 1)
    S = sum(sizes) + 1
    end, starts = S - 1, np.cumsum([0, *sizes])
    transition = np.zeros((S, actions, S))
    reward_probs = np.zeros((S, actions, len(rewards)))
    reward_probs[..., 0] = 1.0
    transition[end, :, end] = 1.0
    for level, size in enumerate(sizes):
        for s in range(starts[level], starts[level] + size):
            for a in range(actions):
                if level + 1 == levels:
                    transition[s, a, end] = 1.0
                else:
                    targets = [*range(starts[level + 1], starts[level + 1] + width)]
                    if level > 0:
                        targets.append(end)
                    p = rng.dirichlet(np.ones(len(targets)))
                    p[p < 0.1] = 0.0
                    transition[s, a, targets] = p / p.sum()
                if not last_only or level + 1 == levels:
                    p = rng.dirichlet(np.full(len(rewards), 0.7))
                    p[p < 0.1] = 0.0
                    reward_probs[s, a] = p / p.sum()
    terminal = np.zeros(S, bool)
    terminal[end] = True
    start = np.zeros(S)
    start[0] = 1.0
    mdp = FiniteMDP(
        transition=transition,
        reward_probs=reward_probs,
        reward_values=np.asarray(rewards, float),
        start=start,
        observations=rng.normal(size=(S, 3)),
        terminal=terminal,
        horizon=levels,
    )
    check_mdp(mdp)
    return mdp


def random_logits(seed, mdp, scale=1.0):
    rng = np.random.default_rng(seed + 1)
    return scale * rng.normal(size=(mdp.num_states, mdp.num_actions))


def softmax(logits):
    return jax.nn.softmax(logits, axis=-1)


SEEDS = st.integers(0, 2**31 - 2)
