"""Exact quantities of a `FiniteMDP` under a policy table, by dynamic programming.

Undiscounted, over the horizon T; everything is jax, in the float type of the tables (float64 where
exactness is claimed, inside `jax.enable_x64`). COCOA (arXiv 2306.16803), section 3 and appendix.
Letters: S states, A actions, R reward values, K outcomes, Z values of the return.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from envs.credit.mdp import REWARD_DECIMALS, FiniteMDP

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Matrix products inside round no factors (TF32, bfloat16), whatever JAX's default is."""

    @wraps(function)
    def exactly(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return exactly


@struct.dataclass
class Encoding:
    """Which outcome U a state, action and reward stand for.

    Attributes:
        index: int[S, A, R], outcome in 0..size-1.
        size: K, static.
    """

    index: Any
    size: int = struct.field(pytree_node=False)


def state_encoding(mdp: FiniteMDP) -> Encoding:
    """U = S' (HCA+)."""
    S, A, R = mdp.reward_probs.shape
    index = np.broadcast_to(np.arange(S, dtype=np.int32)[:, None, None], (S, A, R))
    return Encoding(index=index, size=S)


def reward_encoding(mdp: FiniteMDP) -> Encoding:
    """U = R' (COCOA-reward)."""
    shape = mdp.reward_probs.shape
    return Encoding(
        index=np.broadcast_to(np.arange(shape[2], dtype=np.int32), shape), size=shape[2]
    )


def mean_reward_encoding(mdp: FiniteMDP) -> Encoding:
    """U = E[R' | S', A'], what an ideal reward-predicting feature keeps (exact COCOA-feature)."""
    means = np.asarray(mdp.reward_probs) @ np.asarray(mdp.reward_values)
    return table_encoding(mdp, np.round(means * 10**REWARD_DECIMALS).astype(int))


def table_encoding(mdp: FiniteMDP, table: Any) -> Encoding:
    """U = f(S', A') from an integer table [S, A], relabelled to 0..K-1."""
    table = np.asarray(table)
    if table.shape != mdp.reward_probs.shape[:2]:
        raise ValueError(
            f"table has shape {table.shape}; allowed: {mdp.reward_probs.shape[:2]}, [S, A]"
        )
    kinds, index = np.unique(table, return_inverse=True)
    index = index.reshape(table.shape)[:, :, None].astype(np.int32)
    return Encoding(index=np.broadcast_to(index, mdp.reward_probs.shape), size=len(kinds))


class Values(NamedTuple):
    """Action values float[S, A] and state values float[S]."""

    q: Array
    v: Array


@full_precision
def mean_rewards(mdp: FiniteMDP) -> Float[Array, "S A"]:
    """Expected immediate reward of every state and action."""
    return jnp.asarray(mdp.reward_probs) @ jnp.asarray(mdp.reward_values)


@full_precision
def state_transition(mdp: FiniteMDP, policy: Float[Array, "S A"]) -> Float[Array, "S S"]:
    """P_π(s' | s)."""
    return jnp.einsum("sa,sat->st", policy, jnp.asarray(mdp.transition))


@full_precision
def values(mdp: FiniteMDP, policy: Float[Array, "S A"]) -> Values:
    """Q and V by T backward steps, or one where states are ordered."""
    rewards, transition = mean_rewards(mdp), jnp.asarray(mdp.transition)
    kernel, paid = state_transition(mdp, policy), jnp.sum(policy * rewards, axis=1)
    if mdp.ordered:
        v = _sum_of_steps(mdp, kernel, paid)
    else:
        v = _iterate(lambda v: paid + kernel @ v, paid, mdp.horizon - 1)
    # T - 1 iterations leave T steps in v, so q sees rewards at offsets 0..T, like the counts below.
    q = rewards + transition @ v
    return Values(q=q, v=jnp.sum(policy * q, axis=1))


@full_precision
def successor_counts(mdp: FiniteMDP, policy: Float[Array, "S A"]) -> Float[Array, "S A S"]:
    """M(s, a, s') = Σ_{k=1..T} p(S_k = s' | S_0 = s, A_0 = a), in O(log T) products of S × S."""
    kernel = state_transition(mdp, policy)
    identity = jnp.eye(kernel.shape[0], dtype=kernel.dtype)
    if mdp.ordered:
        return _future_sums(mdp, policy, identity)
    total, power = jnp.zeros_like(kernel), identity  # Σ_{k<n} P^k and P^n for n = 0
    for bit in bin(mdp.horizon)[2:]:
        total, power = total + power @ total, power @ power
        if bit == "1":
            total, power = identity + kernel @ total, kernel @ power
    return jnp.einsum("sat,tu->sau", jnp.asarray(mdp.transition), total)


@full_precision
def outcome_counts(
    mdp: FiniteMDP, policy: Float[Array, "S A"], encoding: Encoding
) -> Float[Array, "S A K"]:
    """M(s, a, u) = Σ_{k=1..T} p(U_k = u | S_0 = s, A_0 = a)."""
    emitted = _emitted(mdp, policy, encoding, jnp.ones_like(jnp.asarray(mdp.reward_values)))
    return _future_sums(mdp, policy, emitted)


@full_precision
def outcome_rewards(
    mdp: FiniteMDP, policy: Float[Array, "S A"], encoding: Encoding
) -> Float[Array, "S A K"]:
    """Σ_{k=1..T} E[R_k 1(U_k = u) | S_0 = s, A_0 = a]: future reward by outcome."""
    emitted = _emitted(mdp, policy, encoding, jnp.asarray(mdp.reward_values))
    return _future_sums(mdp, policy, emitted)


@full_precision
def contribution_ratio(
    counts: Float[Array, "S A K"], policy: Float[Array, "S A"]
) -> Float[Array, "S A K"]:
    """w + 1 = M(s, a, u) / Σ_a' π(a' | s) M(s, a', u); 1 where u cannot follow on s (eq. 3)."""
    total = jnp.einsum("sa,sak->sk", policy, counts)[:, None]
    reachable = total > 0
    return jnp.where(reachable, counts / jnp.where(reachable, total, 1.0), 1.0)


def hindsight_distribution(
    ratio: Float[Array, "S A K"], policy: Float[Array, "S A"]
) -> Float[Array, "S A K"]:
    """h(a | s, u) = π(a | s) (w + 1)."""
    return policy[:, :, None] * ratio


def ratio_from_hindsight(hindsight: Any, policy: Any) -> Array:
    """w + 1 = h(a | s, u) / π(a | s), the form of Bayes' rule.

    Raises:
        ValueError: π is zero somewhere; the forward ratio of `contribution_ratio` is defined there.
    """
    lowest = float(jnp.min(policy))
    if lowest <= 0.0:
        raise ValueError(
            f"policy has a probability of {lowest:g}; a hindsight ratio needs all above 0 "
            "(contribution_ratio does not)"
        )
    return jnp.asarray(hindsight) / jnp.asarray(policy)[:, :, None]


@full_precision
def state_distributions(
    mdp: FiniteMDP, policy: Float[Array, "S A"], first_state_only: bool = False
) -> Float[Array, " S"]:
    """Σ_t p(S_t = s) over t < T, or p(S_0 = s); terminal states count as zero."""
    start = jnp.asarray(mdp.start)
    kernel = state_transition(mdp, policy)
    if mdp.ordered and not first_state_only:
        visits = _sum_of_steps(mdp, kernel, start, forward=True)
    else:
        steps = 0 if first_state_only else mdp.horizon - 1
        visits = _iterate(lambda d: start + d @ kernel, start, steps)
    return jnp.where(jnp.asarray(mdp.terminal), 0.0, visits)


@full_precision
def expected_gradient(
    mdp: FiniteMDP,
    policy_table: Any,
    params: Any,
    advantage: Float[Array, "S A"],
    first_state_only: bool = False,
) -> Any:
    """Σ_t Σ_s p(S_t = s) Σ_a ∇π(a | s) Â(s, a); with the true advantage it is ∇V(s0).

    Args:
        policy_table: params -> π, float[S, A].
        params: pytree that is differentiated.
        advantage: what the estimator believes, on average, of each action.
        first_state_only: keep only the decision at t = 0.

    Returns:
        Gradient, a pytree like `params`.
    """
    policy, pullback = jax.vjp(policy_table, params)
    visits = state_distributions(mdp, policy, first_state_only)
    return pullback(jax.lax.stop_gradient(visits[:, None] * advantage))[0]


def return_support(mdp: FiniteMDP) -> tuple[np.ndarray, np.ndarray]:
    """Values that a partial return can take, on a lattice, and each reward in lattice steps.

    Returns:
        (float[Z] ascending and containing 0, int[R]).

    Raises:
        ValueError: the rewards are not multiples of one number, so closely that a return of T of them
            is still right to 4 decimals.
    """
    rewards = np.asarray(mdp.reward_values, np.float64)
    smallest = np.abs(rewards[np.abs(rewards) > 1e-9]).min(initial=np.inf)
    if not np.isfinite(smallest):
        return np.zeros(1), np.zeros(len(rewards), int)
    for divisor in range(1, 101):
        steps, unit = rewards * divisor / smallest, smallest / divisor
        error = np.abs(steps - steps.round()).max() * unit * mdp.horizon
        if error < 0.5 * 10**-REWARD_DECIMALS and len(set(steps.round())) == len(rewards):
            break
    else:
        raise ValueError(f"rewards {rewards.tolist()} are no multiples of one number")
    units = steps.round().astype(int)
    probs, transition = np.asarray(mdp.reward_probs), np.asarray(mdp.transition)
    highest = np.where(probs > 0, units, -(10**9)).max(-1)
    lowest = np.where(probs > 0, units, 10**9).min(-1)
    top = bottom = np.zeros(mdp.num_states)
    following = transition > 0
    bounds = [0.0, 0.0]
    for _ in range(mdp.horizon):
        top = (highest + np.where(following, top, -np.inf).max(-1)).max(-1)
        bottom = (lowest + np.where(following, bottom, np.inf).min(-1)).min(-1)
        bounds = [min(bounds[0], bottom.min()), max(bounds[1], top.max())]
    return np.arange(int(bounds[0]), int(bounds[1]) + 1) * smallest / divisor, units


@full_precision
def return_distribution(
    mdp: FiniteMDP, policy: Float[Array, "S A"], support: np.ndarray, units: np.ndarray
) -> Float[Array, "S A Z"]:
    """p(Z_0 = z | S_0 = s, A_0 = a) on the lattice of `return_support`."""
    zero, size = int(np.argmin(np.abs(support))), len(support)
    (following, probs), rewards = _following(mdp), jnp.asarray(mdp.reward_probs)
    units = np.clip(units, -size, size)  # zeros on both sides, so that a move is a slice
    before, after = max(int(units.max()), 0), max(-int(units.min()), 0)
    starts = jnp.asarray(before - units, following.dtype)

    # Moved are the distributions that may follow, or, if they are fewer, their means for each action.
    few = following.shape[1] <= mdp.num_actions
    weights = jnp.einsum("sar,saf->sarf", rewards, probs).reshape(*probs.shape[:2], -1)

    def moved(x: Array) -> Array:
        """[R, N, Z], moved by each reward: gathered, which is faster on a CPU than slices."""
        return jax.vmap(lambda j: jax.lax.dynamic_slice_in_dim(x, j, size, axis=1))(starts)

    def step(v: Array, state: Array) -> Array:
        """[A, Z] of one state."""
        later = v[following[state]]
        if few:
            return weights[state] @ moved(later).reshape(-1, size)
        return jnp.einsum("ar,raz->az", rewards[state], moved(probs[state] @ later))

    def back(v: Array, state: Array) -> tuple[Array, Array]:
        found = step(v, state)
        return v.at[state, before : before + size].set(policy[state] @ found), found

    start = jnp.zeros((mdp.num_states, before + size + after), policy.dtype)
    start = start.at[:, before + zero].set(1.0)
    if mdp.ordered:
        return jax.lax.scan(back, start, jnp.arange(mdp.num_states), reverse=True)[1]
    states = jnp.arange(mdp.num_states)
    every = lambda v: jax.lax.map(lambda s: step(v, s), states, batch_size=64)  # noqa: E731
    of_states = lambda v: jnp.einsum("sa,saz->sz", policy, every(v))  # noqa: E731
    backward = lambda v: v.at[:, before : before + size].set(of_states(v))  # noqa: E731
    return every(_iterate(backward, start, mdp.horizon - 1))


def _following(mdp: FiniteMDP) -> tuple[Int[Array, "S F"], Float[Array, "S A F"]]:
    """The states that may follow on each, as many as at most do, and how probably after each action.

    Few do in most worlds: most of a product with the whole table would be zeros.
    """
    if isinstance(mdp.transition, Tracer):  # not known yet, so all may follow
        every = jnp.arange(mdp.num_states)[None]
        return jnp.broadcast_to(every, mdp.transition.shape[::2]), mdp.transition
    table = np.asarray(mdp.transition)
    possible = table.any(axis=1)
    index = np.argsort(~possible, axis=1, kind="stable")[:, : possible.sum(axis=1).max()]
    return jnp.asarray(index), jnp.asarray(np.take_along_axis(table, index[:, None], axis=2))


# Expected advantages E[Â(s, a)], of right and wrong models alike (spec section 4).


@full_precision
def advantage_contribution(
    mdp: FiniteMDP, policy: Float[Array, "S A"], encoding: Encoding, w: Float[Array, "S A K"]
) -> Float[Array, "S A"]:
    """COCOA and HCA+ with any coefficients ŵ: r̄ − r̄_π + Σ_u ŵ(s, a, u) E[Σ_k R_k 1(U_k = u) | s]."""
    immediate = mean_rewards(mdp)
    baseline = jnp.sum(policy * immediate, axis=1, keepdims=True)
    future = jnp.einsum("sa,sak->sk", policy, outcome_rewards(mdp, policy, encoding))
    return immediate - baseline + jnp.einsum("sak,sk->sa", w, future)


@full_precision
def advantage_hca(
    mdp: FiniteMDP,
    policy: Float[Array, "S A"],
    w: Float[Array, "S A S"],
    reward_model: Float[Array, "S A"],
) -> Float[Array, "S A"]:
    """Original HCA with any reward model r̂(s, a) and state-based coefficients."""
    ours = advantage_contribution(mdp, policy, state_encoding(mdp), w)
    return ours - mean_rewards(mdp) + reward_model


@full_precision
def advantage_hca_return(
    returns: Float[Array, "S A Z"],
    support: Float[Array, " Z"],
    inverse_ratio: Float[Array, "S A Z"],
) -> Float[Array, "S A"]:
    """HCA-return: E[(1 − π/ĥ(a | s, Z)) Z | s, a], with `inverse_ratio` = π/ĥ.

    With the exact h this is Q(s, a) − Σ_z p(z | s) z over the returns z that may follow on a: biased
    where some may not.
    """
    return jnp.einsum("saz,saz,z->sa", returns, 1.0 - inverse_ratio, support)


@full_precision
def advantage_counterfactual_return(
    returns: Float[Array, "S A Z"],
    policy: Float[Array, "S A"],
    support: Float[Array, " Z"],
    ratio: Float[Array, "S A Z"],
) -> Float[Array, "S A"]:
    """Counterfactual return: E[(ĥ(a | s, Z)/π − 1) Z | s]."""
    of_state = jnp.einsum("sa,saz->sz", policy, returns)
    return jnp.einsum("sz,saz,z->sa", of_state, ratio - 1.0, support)


def _emitted(mdp: FiniteMDP, policy: Array, encoding: Encoding, weights: Array) -> Array:
    """E[weight(R) 1(U = u) | s] of one step in s, float[S, K]."""
    amounts = policy[:, :, None] * jnp.asarray(mdp.reward_probs) * weights[None, None]
    rows = jnp.broadcast_to(jnp.arange(mdp.num_states)[:, None, None], amounts.shape)
    zeros = jnp.zeros((mdp.num_states, encoding.size), amounts.dtype)
    return zeros.at[rows, jnp.asarray(encoding.index)].add(amounts)


def _future_sums(mdp: FiniteMDP, policy: Array, emitted: Array) -> Array:
    """Σ_{k=1..T} E[emitted(S_k) | s, a], float[S, A, K]."""
    kernel, transition = state_transition(mdp, policy), jnp.asarray(mdp.transition)
    states, columns = emitted.shape
    if mdp.ordered:
        # Of T steps a terminal state counts those after its start: all T less those before.
        at_end = jnp.where(jnp.asarray(mdp.terminal)[:, None], emitted, 0.0)
        ended = _sum_of_steps(mdp, kernel, at_end)
        before = jnp.where(jnp.asarray(mdp.terminal)[:, None], 0.0, emitted - ended)
        later = mdp.horizon * ended + _sum_of_steps(mdp, kernel, before)
    elif mdp.horizon * columns > 2 * mdp.horizon.bit_length() * states:
        return jnp.einsum("sat,tk->sak", successor_counts(mdp, policy), emitted)
    else:
        later = _iterate(lambda n: emitted + kernel @ n, emitted, mdp.horizon - 1)
    return jnp.einsum("sat,tk->sak", transition, later)


def _sum_of_steps(mdp: FiniteMDP, kernel: Array, right: Array, forward: bool = False) -> Array:
    """Σ_k P^k x with an ordered P that stops at terminal states, or Σ_k x P^k with `forward`: one triangular system.

    Args:
        kernel: P_π, float[S, S].
        right: x, float[S] or float[S, K].
    """
    alive = jnp.where(jnp.asarray(mdp.terminal)[:, None], 0.0, kernel)
    system = jnp.eye(kernel.shape[0], dtype=kernel.dtype) - alive
    return jax.scipy.linalg.solve_triangular(system, right, trans=int(forward), lower=False)


def _iterate(function: Any, start: Array, steps: int) -> Array:
    return jax.lax.scan(lambda x, _: (function(x), None), start, None, length=steps)[0]
