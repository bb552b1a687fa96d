"""Random small MDPs and policies for property tests; plain numpy, float64."""

import jax
import numpy as np
from hypothesis import strategies as st

from envs.credit.mdp import FiniteMDP, check_mdp, is_ordered


def random_mdp(
    seed, levels=2, width=2, actions=2, rewards=(0.0, 1.0, -2.0), last_only=False, anywhere=False
):
    """A layered MDP: states of level i lead to random states of level i + 1, some early to the end.

    With `last_only` only the last level pays; with `anywhere` any state may be the first.
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
    if anywhere:
        start[:end] = rng.dirichlet(np.ones(end))
    mdp = FiniteMDP(
        transition=transition,
        reward_probs=reward_probs,
        reward_values=np.asarray(rewards, float),
        start=start,
        observations=rng.normal(size=(S, 3)),
        terminal=terminal,
        horizon=levels,
        ordered=is_ordered(transition, terminal),
    )
    check_mdp(mdp)
    return mdp


def cyclic_mdp(seed, states, actions, rewards=(0.0, 1.0, -2.0), horizon=150):
    """States lead to any others, themselves included, and to the end with at least 0.3 each: less than
    1e-23 of the episodes go on after the horizon. Any state may be the first."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((states + 1, actions, states + 1))
    transition[:-1] = rng.dirichlet(np.ones(states + 1), size=(states, actions)) * 0.7
    transition[:-1, :, -1] += 0.3
    transition[-1, :, -1] = 1.0
    reward_probs = rng.dirichlet(np.ones(len(rewards)), size=(states + 1, actions))
    reward_probs[-1] = np.eye(len(rewards))[0]
    mdp = FiniteMDP(
        transition=transition,
        reward_probs=reward_probs,
        reward_values=np.asarray(rewards, float),
        start=np.append(rng.dirichlet(np.ones(states)), 0.0),
        observations=rng.normal(size=(states + 1, 3)),
        terminal=np.arange(states + 1) == states,
        horizon=horizon,
    )
    check_mdp(mdp)
    return mdp


def two_ends(mdp):
    """The same with another end, which takes a random share of what leads to the first."""
    S, A, _ = mdp.reward_probs.shape
    rng = np.random.default_rng(mdp.num_states)
    moved = mdp.transition[:, :, S - 1 :] * rng.uniform(size=(S, A, 1))
    moved[S - 1] = 0.0
    transition = np.concatenate([mdp.transition, moved], axis=2)
    transition[:, :, S - 1 : S] -= moved
    last = np.zeros((1, A, S + 1))
    last[..., S] = 1.0
    found = mdp.replace(
        transition=np.concatenate([transition, last]),
        reward_probs=np.concatenate([mdp.reward_probs, mdp.reward_probs[S - 1 :]]),
        start=np.append(mdp.start, 0.0),
        terminal=np.append(mdp.terminal, True),
        observations=np.concatenate([mdp.observations, mdp.observations[:1] + 1.0]),
    )
    check_mdp(found)
    return found


def random_logits(seed, mdp, scale=1.0):
    rng = np.random.default_rng(seed + 1)
    return scale * rng.normal(size=(mdp.num_states, mdp.num_actions))


def softmax(logits):
    return jax.nn.softmax(logits, axis=-1)


SEEDS = st.integers(0, 2**31 - 2)
