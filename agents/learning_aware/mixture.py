"""Embedded Bayesian agents in repeated two-player games (MUPI, arXiv 2511.22226): exact, in float64 on the host.

A universe is a pair (own policy, other's policy); an agent holds a belief over universes, updates it on its *own actions*
as well as on what the other does, and best-responds to what it then predicts. Policies are finite automata. Numpy, not
jax: classes are small, the trees are irregular, and probabilities must be exact. Letters: N own and K other policies, S
automaton states, A own and B other actions. With more players "the other" is all others at once, see `mixture_players`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

ZERO = -np.inf


@dataclass(frozen=True)
class PolicyClass:
    """A class of policies as automata with a common number of states; state 0 is the first.

    Attributes:
        output: [N, S, A] action probabilities.
        transition: [N, S, A, B] next state after (own action, other's action).
        weight: [N] prior weights w̃, summing to 1.
    """

    output: np.ndarray
    transition: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        n, s, a = self.output.shape
        sums = self.output.sum(-1)
        if not (np.abs(sums - 1) <= 1e-9).all() or (self.output < 0).any():
            worst = sums.flat[np.abs(sums - 1).argmax()]
            raise ValueError(
                f"output has a row that sums to {worst:g}; allowed: probabilities >= 0 that sum to 1"
            )
        if self.transition.shape[:3] != (n, s, a) or self.transition.ndim != 4:
            raise ValueError(
                f"transition has shape {list(self.transition.shape)}; allowed: [{n}, {s}, {a}, B]"
            )
        if (
            self.weight.shape != (n,)
            or abs(self.weight.sum() - 1) > 1e-9
            or (self.weight < 0).any()
        ):
            raise ValueError(
                f"weight sums to {self.weight.sum():g}; allowed: {n} weights that sum to 1"
            )


@dataclass(frozen=True)
class Belief:
    """Posterior over universes, and where each policy stands after the history.

    Attributes:
        log_weight: [N, K], normalised.
        own_state, other_state: [N], [K].
    """

    own: PolicyClass
    other: PolicyClass
    log_weight: np.ndarray
    own_state: np.ndarray
    other_state: np.ndarray


def open_loop(length: int, always_last: float = 0.0, players: int = 2) -> PolicyClass:
    """All 2^length action sequences, uniform; `always_last` of the mass is moved to "always action 1" (defect).

    Args:
        players: of the game; the others' 2^(players − 1) joint actions are seen, and ignored.
    """
    sequences = (np.arange(2**length)[:, None] >> np.arange(length)[::-1]) & 1  # [N, S]
    output = np.eye(2)[sequences]
    following = np.minimum(np.arange(length) + 1, length - 1)
    shape = (2**length, length, 2, 2 ** (players - 1))
    transition = np.broadcast_to(following[None, :, None, None], shape)
    weight = np.full(2**length, (1 - always_last) / 2**length)
    weight[-1] += always_last
    return PolicyClass(output, transition, weight)


def memory_one(tremble: float = 0.0) -> PolicyClass:
    """All 32 deterministic memory-1 policies of a two-action game, uniform; each action is missed with `tremble`.

    States: start, then the last joint action with one's own first.
    """
    actions = (np.arange(32)[:, None] >> np.arange(5)[::-1]) & 1
    output = (1 - tremble) * np.eye(2)[actions] + tremble * np.eye(2)[1 - actions]
    following = 1 + np.arange(4).reshape(2, 2)
    transition = np.broadcast_to(following[None, None], (32, 5, 2, 2))
    return PolicyClass(output, transition, np.full(32, 1 / 32))


def copy_prior(policies: PolicyClass, alpha: float) -> Belief:
    """w(π, π') = α w̃(π) 1[π = π'] + (1 − α) w̃(π) w̃(π'): "the other runs my policy" with weight α."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; allowed: in [0, 1]")
    w = policies.weight
    return from_prior(policies, policies, alpha * np.diag(w) + (1 - alpha) * np.outer(w, w))


def from_prior(own: PolicyClass, other: PolicyClass, weight: np.ndarray) -> Belief:
    """Belief with prior weights [N, K]. Raises ValueError unless they sum to 1."""
    if abs(weight.sum() - 1) > 1e-9 or (weight < 0).any():
        raise ValueError(
            f"prior weights sum to {weight.sum():g}; allowed: weights >= 0 that sum to 1"
        )
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight)
    n, k = weight.shape
    return Belief(own, other, log_weight, np.zeros(n, int), np.zeros(k, int))


def decoupled(belief: Belief) -> Belief:
    """The product of the belief's marginals: own actions then say nothing about the other."""
    weight = np.exp(belief.log_weight)
    product = np.outer(weight.sum(1), weight.sum(0))
    with np.errstate(divide="ignore"):
        return replace(belief, log_weight=np.log(product))


def predict_self(belief: Belief) -> np.ndarray:
    """ρ(a | history) [A]: what the agent expects itself to do."""
    own = np.exp(belief.log_weight).sum(1)
    return own @ _own_output(belief)


def predict_other(belief: Belief, action: int) -> np.ndarray:
    """ρ(b | history, own action a) [B], own action as evidence.

    Raises:
        ValueError: an action of probability 0, on which nothing can be conditioned (grain of uncertainty).
    """
    return np.exp(observe_action(belief, action).log_weight).sum(0) @ _other_output(belief)


def observe_action(belief: Belief, action: int) -> Belief:
    """Posterior after one's own action (the first of a round's two updates; no policy moves on yet)."""
    with np.errstate(divide="ignore"):
        return _reweight(
            belief, np.log(_own_output(belief)[:, action])[:, None], f"own action {action}"
        )


def observe_percept(belief: Belief, action: int, other: int) -> Belief:
    """Posterior after the other's action; then all policies move on."""
    with np.errstate(divide="ignore"):
        evidence = np.log(_other_output(belief)[:, other])[None, :]
    belief = _reweight(belief, evidence, f"other's action {other}")
    n, k = belief.log_weight.shape
    own_state = belief.own.transition[np.arange(n), belief.own_state, action, other]
    other_state = belief.other.transition[np.arange(k), belief.other_state, other, action]
    return replace(belief, own_state=own_state, other_state=other_state)


def self_value(belief: Belief, payoff: np.ndarray, discount: float, horizon: int) -> float:
    """V_ρ: (1 − γ) Σ_t γ^t E_ρ[r], letting the mixture itself act and respond for `horizon` rounds."""
    if horizon == 0:
        return 0.0
    own, total = predict_self(belief), 0.0
    for action in np.flatnonzero(own):
        after = observe_action(belief, int(action))
        other = np.exp(after.log_weight).sum(0) @ _other_output(belief)
        for reply in np.flatnonzero(other):
            reward = (1 - discount) * payoff[action, reply]
            if discount and horizon > 1:
                following = observe_percept(after, int(action), int(reply))
                reward += discount * self_value(following, payoff, discount, horizon - 1)
            total += own[action] * other[reply] * reward
    return float(total)


def q_values(
    belief: Belief,
    payoff: np.ndarray,
    discount: float,
    depth: int,
    horizon: int,
    causal: bool = False,
) -> np.ndarray:
    """Q^k(a) of the k-step planner [A], with V_ρ after k = `depth` own choices, up to `horizon` rounds in all.

    Q¹(a) = E_ρ(b|a)[(1 − γ) r + γ V_ρ]; Q^k maximises over Q^{k−1} after the percept. depth = horizon: embedded
    best response to that horizon. Payoffs [A, B]. Actions of probability 0 raise ValueError.

    Args:
        causal: a contemplated action is an intervention, and no evidence about the other: ρ(b | history) instead of
            ρ(b | history, a). Not what MUPI's agents do; the comparison shows what evidence is worth (spec 11.5).
    """
    if not 1 <= depth <= horizon:
        raise ValueError(f"depth is {depth}; allowed: 1 to the horizon, {horizon}")
    values = np.zeros(payoff.shape[0])
    for action in range(payoff.shape[0]):
        after = belief if causal else observe_action(belief, action)
        other = np.exp(after.log_weight).sum(0) @ _other_output(belief)
        for reply in np.flatnonzero(other):
            value = (1 - discount) * payoff[action, reply]
            if discount and horizon > 1:
                following = observe_percept(after, action, int(reply))
                if depth == 1:
                    value += discount * self_value(following, payoff, discount, horizon - 1)
                else:
                    inner = q_values(following, payoff, discount, depth - 1, horizon - 1, causal)
                    value += discount * float(inner.max())
            values[action] += other[reply] * value
    return values


@dataclass(frozen=True)
class EmbeddedAgent:
    """Acts by argmax Q^k; ties go to the last action (defection), up to `tolerance`.

    With `causal` only contemplated actions are no evidence; what it has done is, as for every embedded agent.
    """

    belief: Belief
    payoff: np.ndarray
    discount: float = 0.0
    depth: int = 1
    horizon: int = 1
    tolerance: float = 1e-12
    causal: bool = False

    def act(self) -> int:
        """The action of this round."""
        q = q_values(self.belief, self.payoff, self.discount, self.depth, self.horizon, self.causal)
        return int(np.flatnonzero(q >= q.max() - self.tolerance)[-1])

    def after(self, action: int, other: int) -> "EmbeddedAgent":
        """The agent after a round."""
        belief = observe_percept(observe_action(self.belief, action), action, other)
        return replace(self, belief=belief)


Opponent = Callable[[list[tuple[int, int]]], int]
"""A scripted player: history of (its own, the other's) actions → action."""


def play(
    first: EmbeddedAgent, second: EmbeddedAgent | Opponent, rounds: int
) -> list[tuple[int, int]]:
    """Joint actions of a repeated game; both see everything."""
    history: list[tuple[int, int]] = []
    for _ in range(rounds):
        a = first.act()
        if isinstance(second, EmbeddedAgent):
            b = second.act()
            second = second.after(b, a)
        else:
            b = second([(y, x) for x, y in history])
        first = first.after(a, b)
        history.append((a, b))
    return history


def coupling(belief: Belief) -> float:
    """Mutual information in nats of own and other's policy under the belief; 0 is decoupled."""
    weight = np.exp(belief.log_weight)
    product = np.outer(weight.sum(1), weight.sum(0))
    support = weight > 0
    return float(np.sum(weight[support] * np.log(weight[support] / product[support])))


def _own_output(belief: Belief) -> np.ndarray:
    return belief.own.output[np.arange(len(belief.own_state)), belief.own_state]


def _other_output(belief: Belief) -> np.ndarray:
    return belief.other.output[np.arange(len(belief.other_state)), belief.other_state]


def _reweight(belief: Belief, evidence: np.ndarray, what: str) -> Belief:
    log_weight = belief.log_weight + evidence
    top = log_weight.max()
    if top == ZERO:
        raise ValueError(
            f"{what} has probability 0 under the belief; allowed: actions that some universe in the class takes"
        )
    log_weight = log_weight - top
    return replace(belief, log_weight=log_weight - np.log(np.exp(log_weight).sum()))
