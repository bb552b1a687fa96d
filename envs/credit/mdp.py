"""Finite Markov decision processes as tables, and how an environment becomes one.

An environment that can be enumerated says on the host, in plain Python, what may follow on a state
and an action (`Model`). That description is independent of its compiled dynamics, so each is a test
of the other. Letters: S states, A actions, R reward values, D observation entries.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct

REWARD_DECIMALS = 4
"""Rewards and observations that agree to this many decimals are the same (spec section 4)."""
CUT_TOLERANCE = 0.01
"""Share of episodes that may go on after the horizon before exact tables are refused: the tables know
no clock, so they count rewards that a cut episode never gets."""
_MAX_STATES = 20_000
_MAX_TABLE_BYTES = 2 * 1024**3


class Outcome(NamedTuple):
    """One thing that may follow on a state and an action."""

    probability: float
    reward: float
    next_state: Hashable


@dataclass(frozen=True)
class Model:
    """An environment in plain Python.

    Attributes:
        start: (probability, state) pairs.
        outcomes: (state, action) -> every `Outcome`; given state and action, reward and next state
            must be independent, because tables hold a distribution of each: a state that also says what
            was just paid makes them so.
        observe: state -> observation, a sequence of numbers.
        is_terminal: whether the episode is over in a state.
        num_actions: A.
        horizon: T, steps after which every episode is over or cut.
        reward_values: every reward that may occur, zero included, without duplicates.
    """

    start: Sequence[tuple[float, Hashable]]
    outcomes: Callable[[Any, int], Sequence[Outcome]]
    observe: Callable[[Any], Sequence[float]]
    is_terminal: Callable[[Any], bool]
    num_actions: int
    horizon: int
    reward_values: tuple[float, ...]


@runtime_checkable
class Enumerable(Protocol):
    """An environment that can describe itself as a `Model`; raises ValueError where it cannot."""

    def model(self, params: Any) -> Model: ...


@struct.dataclass
class FiniteMDP:
    """Tables of an episodic, undiscounted MDP. Terminal states keep to themselves with reward zero.

    Attributes:
        transition: P(s' | s, a), float[S, A, S].
        reward_probs: p(r | s, a), float[S, A, R].
        reward_values: float[R], contains 0.
        start: p(S_0 = s), float[S].
        observations: float[S, D], one row per state, all different.
        terminal: bool[S].
        horizon: T, static.
        ordered: static; every state but terminal ones is followed only by states with higher numbers, and
            no episode is longer than the horizon. Then `envs.credit.exact` needs one pass instead of T, and does
            not look again: replace tables or horizon only together with it (`check_mdp` verifies it).
    """

    transition: Any
    reward_probs: Any
    reward_values: Any
    start: Any
    observations: Any
    terminal: Any
    horizon: int = struct.field(pytree_node=False)
    ordered: bool = struct.field(pytree_node=False, default=False)

    @property
    def num_states(self) -> int:
        return self.transition.shape[0]

    @property
    def num_actions(self) -> int:
        return self.transition.shape[1]

    def astype(self, dtype: Any) -> "FiniteMDP":
        """The same tables as jax arrays of another float type."""
        return jax.tree.map(
            lambda x: jax.numpy.asarray(x, bool if np.asarray(x).dtype == bool else dtype), self
        )


def unique_rewards(values: Sequence[float]) -> tuple[float, ...]:
    """Reward values without repetitions (to 4 decimals), zero first, then as given."""
    kept = [0.0]
    for value in values:
        if all(abs(value - other) >= 0.5 * 10**-REWARD_DECIMALS for other in kept):
            kept.append(float(value))
    return tuple(kept)


def enumerate_mdp(
    env: Any,
    params: Any = None,
    horizon: int | None = None,
    cut_tolerance: float = CUT_TOLERANCE,
) -> FiniteMDP:
    """Tables of an environment, in float64, by breadth-first search from its start states.

    States are identified by their observation, so terminal states that look alike are one state.

    Args:
        env: an environment with a method `model(params)`, or a `Model`.
        params: the environment's parameters.
        horizon: number of steps that are counted; default: the model's own.
        cut_tolerance: see `check_horizon`.

    Raises:
        ValueError: the environment cannot be enumerated or is too large, two states that are not
            terminal look alike, a reward is not in the list, reward and next state depend on each
            other, or the horizon is shorter than an episode.
    """
    if isinstance(env, Model):
        model = env
    elif isinstance(env, Enumerable):
        model = env.model(params)
    else:
        raise ValueError(
            f"env is {type(env).__name__}; exact tables need an environment with a method model()"
        )
    horizon = model.horizon if horizon is None else horizon
    if horizon < model.horizon:
        raise ValueError(
            f"horizon={horizon} is shorter than an episode; allowed: at least {model.horizon}"
        )
    index, states, edges = _search(model)
    return _tables(model, horizon, cut_tolerance, index, states, edges)


def _search(model: Model):
    index: dict[tuple, int] = {}
    states: list[Any] = []
    edges: list[tuple[int, int, list[tuple[float, float, int]]]] = []

    def number(state: Any) -> int:
        seen = tuple(round(float(x), REWARD_DECIMALS) for x in model.observe(state))
        if seen not in index:
            if len(states) >= _MAX_STATES:
                raise ValueError(
                    f"number of states exceeds {_MAX_STATES}; exact tables need a smaller MDP"
                )
            index[seen] = len(states)
            states.append(state)
        known = states[index[seen]]
        if known != state and not (model.is_terminal(known) and model.is_terminal(state)):
            raise ValueError(
                f"states {known!r} and {state!r} have the same observation; "
                "exact tables need observations that tell states apart"
            )
        return index[seen]

    for _, state in model.start:
        number(state)
    position = 0
    while position < len(states):
        state = states[position]
        for action in range(model.num_actions):
            if model.is_terminal(state):
                following = [(1.0, 0.0, position)]
            else:
                following = [(p, r, number(s)) for p, r, s in model.outcomes(state, action) if p]
            edges.append((position, action, following))
        position += 1
    return index, states, edges


def _tables(model: Model, horizon: int, cut_tolerance: float, index, states, edges) -> FiniteMDP:
    S, A, values = len(states), model.num_actions, np.asarray(model.reward_values, np.float64)
    if S * A * S * 8 > _MAX_TABLE_BYTES:
        raise ValueError(f"number of states is {S}; exact tables need a smaller MDP")
    transition, reward_probs = np.zeros((S, A, S)), np.zeros((S, A, len(values)))
    for s, a, following in edges:
        joint: dict[tuple[int, int], float] = defaultdict(float)
        for p, r, s_next in following:
            paid = reward_index(r, values)
            transition[s, a, s_next] += p
            reward_probs[s, a, paid] += p
            joint[paid, s_next] += p
        paid, after = ({key[i] for key in joint} for i in range(2))
        for i, j in itertools.product(paid, after) if min(len(paid), len(after)) > 1 else ():
            product = reward_probs[s, a, i] * transition[s, a, j]
            if abs(joint[i, j] - product) > 1e-6:
                raise ValueError(
                    f"reward {values[i]:g} and next state {states[j]!r} follow on state {states[s]!r} "
                    f"and action {a} with probability {joint[i, j]:g}, but independently with "
                    f"{product:g}; exact tables need the two to be independent"
                )
    start = np.zeros(S)
    for p, state in model.start:
        seen = tuple(round(float(x), REWARD_DECIMALS) for x in model.observe(state))
        start[index[seen]] += p
    terminal = np.array([model.is_terminal(s) for s in states], bool)
    mdp = FiniteMDP(
        transition=transition,
        reward_probs=reward_probs,
        reward_values=values,
        start=start,
        observations=np.array([model.observe(s) for s in states], np.float64),
        terminal=terminal,
        horizon=horizon,
        ordered=is_ordered(transition, terminal),
    )
    check_mdp(mdp, cut_tolerance)  # also that no episode without repeated states is cut
    return mdp


def is_ordered(transition: np.ndarray, terminal: np.ndarray) -> bool:
    """Whether states that are not terminal are followed by states with higher numbers only, and terminal
    ones each by itself."""
    follows = transition.sum(1) > 0
    stays = follows[terminal].sum() == terminal.sum() and follows[terminal, terminal].all()
    return bool(stays) and not np.tril(follows)[~terminal].any()


def reward_index(reward: float, values: np.ndarray) -> int:
    """Position of a reward in the list of possible ones, matched to 4 decimals.

    Raises:
        ValueError: the reward is not in the list.
    """
    distance = np.abs(np.asarray(values, np.float64) - reward)
    best = int(np.argmin(distance))
    if distance[best] >= 10**-REWARD_DECIMALS:
        listed = ", ".join(f"{v:g}" for v in values)
        raise ValueError(f"reward {reward:g} is not in the list of possible rewards ({listed})")
    return best


def check_mdp(mdp: FiniteMDP, cut_tolerance: float = CUT_TOLERANCE) -> None:
    """Raise ValueError unless the tables are distributions, terminal states are absorbing and pay
    nothing, states are ordered if the MDP says so, and the horizon is long enough for `check_horizon`."""
    for name in ("transition", "reward_probs", "start"):
        table = np.asarray(getattr(mdp, name))
        error = np.abs(table.sum(-1) - 1.0).max()
        if table.min() < 0 or error > 1e-6:
            raise ValueError(f"{name} is off a distribution by {error:g}; rows must sum to 1")
    terminal = np.asarray(mdp.terminal)
    stays = np.asarray(mdp.transition)[terminal][:, :, terminal].sum(-1)
    paid = (np.asarray(mdp.reward_probs) @ np.abs(np.asarray(mdp.reward_values)))[terminal]
    if stays.size and (stays.min() < 1 - 1e-6 or paid.max() > 0):
        raise ValueError("terminal states must be absorbing and pay nothing")
    if mdp.ordered and not is_ordered(np.asarray(mdp.transition), terminal):
        raise ValueError(
            "ordered is True; allowed: False, as a state is followed by an earlier one or an end by another"
        )
    check_horizon(mdp, mdp.horizon, cut_tolerance)


def check_horizon(mdp: FiniteMDP, horizon: int, cut_tolerance: float = CUT_TOLERANCE) -> None:
    """Raise ValueError where `horizon` steps are too few for the episodes of an MDP.

    Where no state repeats, none may be longer. Elsewhere any horizon cuts some, and at most a share
    of `cut_tolerance` may be cut under the uniform policy. (The worst policy would refuse every world
    in which an agent can wait.)
    """
    longest = _longest_episode(mdp)
    if longest is not None:
        if longest > horizon:
            raise ValueError(
                f"horizon={horizon} is shorter than an episode; allowed: at least {longest}"
            )
        return
    alive = _alive_after(mdp, horizon)
    if alive > cut_tolerance:
        raise ValueError(
            f"horizon={horizon} is shorter than {alive:.2g} of the episodes; allowed: one that cuts "
            f"at most {cut_tolerance:g} of them (under the uniform policy)"
        )


def _alive_after(mdp: FiniteMDP, horizon: int) -> float:
    """Probability that an episode of the uniform policy goes on after `horizon` steps."""
    kernel = np.asarray(mdp.transition, np.float64).mean(1)
    alive = ~np.asarray(mdp.terminal)
    # Few states follow on each, so sums over the entries are far cheaper than dense products.
    source, target = np.nonzero(kernel * (alive[:, None] & alive[None]))
    weight = kernel[source, target]
    share = np.asarray(mdp.start, np.float64) * alive
    for _ in range(horizon):
        share = np.bincount(target, share[source] * weight, minlength=mdp.num_states)
    return float(share.sum())


def _longest_episode(mdp: FiniteMDP) -> int | None:
    """Steps of the longest episode; None where states can repeat before the end."""
    reachable = np.asarray(mdp.transition).sum(1) > 0
    alive = ~np.asarray(mdp.terminal)
    current = (np.asarray(mdp.start) > 0) & alive
    for steps in range(mdp.num_states + 1):
        if not current.any():
            return steps
        current = reachable[current].any(0) & alive
    return None
