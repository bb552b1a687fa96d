"""Embedded Bayesian agents among N players (MUPI, arXiv 2511.22226; spec 11.3): everybody else is one environment.

A universe is one policy for each player, so a belief has one axis per player. To player i all that counts is its own
policy and the joint policy of the others, so those axes are merged and `mixture` does the rest. Everywhere, what a player
sees of the others is the index of their joint action: ascending order of players, row-major.
"""

from collections.abc import Sequence

import numpy as np

from agents.learning_aware.mixture import Belief, EmbeddedAgent, PolicyClass, from_prior


def others(classes: Sequence[PolicyClass], player: int) -> PolicyClass:
    """All players but `player` as one class: K = ∏ N_j policies, ∏ S_j states, B = ∏ A_j joint actions.

    Args:
        classes: of all players; `transition` [N_j, S_j, A_j, joint actions of the others].
    """
    crowd = [j for j in range(len(classes)) if j != player]
    counts, states, sizes = zip(*(classes[j].output.shape for j in crowd), strict=True)
    policy, state, action = (  # [n − 1, K], [n − 1, S], [n − 1, B]
        np.indices(shape).reshape(len(crowd), -1) for shape in (counts, states, sizes)
    )
    own = np.arange(classes[player].output.shape[2])  # the one left out acts, too
    output, after = 1.0, []
    for j, k, s, b in zip(crowd, policy, state, action, strict=True):
        k, s = k[:, None, None, None], s[None, :, None, None]
        output = output * classes[j].output[k[..., 0], s[..., 0], b]
        everyone = {
            player: own[None, :],
            **{i: x[:, None] for i, x in zip(crowd, action, strict=True)},
        }
        seen = [i for i in sorted(everyone) if i != j]
        index = np.ravel_multi_index(
            np.broadcast_arrays(*(everyone[i] for i in seen)),
            [classes[i].output.shape[2] for i in seen],
        )  # [B, A]
        if classes[j].transition.shape[3] != index.max() + 1:
            raise ValueError(
                f"transition of player {j} has {classes[j].transition.shape[3]} joint actions of the others; "
                f"allowed: {index.max() + 1}"
            )
        after.append(classes[j].transition[k, s, b[:, None], index])
    weight = np.prod([classes[j].weight[k] for j, k in zip(crowd, policy, strict=True)], axis=0)
    transition = np.asarray(np.ravel_multi_index(tuple(after), states))
    return PolicyClass(np.asarray(output), transition, weight)


def joint_prior(classes: Sequence[PolicyClass], weight: np.ndarray, player: int) -> Belief:
    """Belief of `player` with prior weights [N_0, …, N_{n−1}] over universes. Raises ValueError unless they sum to 1."""
    shape = tuple(len(c.weight) for c in classes)
    if weight.shape != shape:
        raise ValueError(f"prior weights have shape {list(weight.shape)}; allowed: {list(shape)}")
    merged = np.moveaxis(weight, player, 0).reshape(shape[player], -1)
    return from_prior(classes[player], others(classes, player), merged)


def copies(policies: PolicyClass, alpha: float, players: int) -> np.ndarray:
    """Prior weights [N, …, N] of "all others run my policy": α w̃(π) on the diagonal, (1 − α) ∏ w̃(π_j) everywhere."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; allowed: in [0, 1]")
    weight = (1 - alpha) * np.ones((1,) * players)
    for axis in range(players):
        weight = weight * np.expand_dims(policies.weight, [i for i in range(players) if i != axis])
    weight[(np.arange(len(policies.weight)),) * players] += alpha * policies.weight
    return weight


def payoff_of(payoffs: np.ndarray, player: int) -> np.ndarray:
    """Payoffs [n, A, …, A] as `player` sees them [A, B]: own action, joint action of the others."""
    own = np.moveaxis(payoffs[player], player, 0)
    return own.reshape(own.shape[0], -1)


def play_together(agents: Sequence[EmbeddedAgent], rounds: int) -> list[tuple[int, ...]]:
    """Joint actions of a repeated game of all agents, in the order of players; everybody sees everything."""
    history: list[tuple[int, ...]] = []
    sizes = [agent.payoff.shape[0] for agent in agents]
    for _ in range(rounds):
        joint = tuple(agent.act() for agent in agents)
        agents = [
            agent.after(
                joint[i],
                int(np.ravel_multi_index(joint[:i] + joint[i + 1 :], sizes[:i] + sizes[i + 1 :])),
            )
            for i, agent in enumerate(agents)
        ]
        history.append(joint)
    return history
