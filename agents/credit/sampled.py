"""Every estimator of this package for continuous actions, with its sum over actions sampled.

A Gaussian policy decides now and then (codes z over abstract steps, see `internal_rl`), so Σ_a becomes
a mean over M fresh actions (COCOA, arXiv 2306.16803, eq. 27):

    ĝ = Σ_n ∇log π(z_n | s_n) x_n + Σ_n (1/M) Σ_m ∇log π(z_nm | s_n) y_nm,   z_nm ~ π(· | s_n) anew.

An estimator is the pair (x, y). The executed z_n is never one of the z_nm, which would bias the
estimate. Functions act on one episode; `vmap` batches. Letters: N decisions, M fresh actions, Z entries
of an action, K outcomes, D entries of an observation.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from agents.credit.estimators import future_sums


@struct.dataclass
class Decisions:
    """One episode as its decisions.

    Attributes:
        obs: float[N, D], what the policy saw.
        action: float[N, Z].
        mean, log_std: float[N, Z], of the acting policy.
        valid: bool[N], decisions that were made; the others are padding on the right.
        reward: float[N], all reward from decision n until the next one.
        kind_reward, kind_count: float[N, K], the same reward by kind, and how often each kind was paid.
    """

    obs: Float[Array, "*b N D"]
    action: Float[Array, "*b N Z"]
    mean: Float[Array, "*b N Z"]
    log_std: Float[Array, "*b N Z"]
    valid: Bool[Array, "*b N"]
    reward: Float[Array, "*b N"]
    kind_reward: Float[Array, "*b N K"]
    kind_count: Float[Array, "*b N K"]

    @property
    def weight(self) -> Float[Array, "*b N"]:
        """1 for decisions that were made, else 0."""
        return self.valid.astype(self.reward.dtype)

    @property
    def to_go(self) -> Float[Array, "*b N"]:
        """Z_n = Σ_{n' ≥ n} R_n'."""
        return jax.lax.cumsum(self.reward, axis=self.reward.ndim - 1, reverse=True)


@runtime_checkable
class Choices(Protocol):
    """What `Decisions` and `replay.Replay` share: states, what was done there, and the policy."""

    @property
    def obs(self) -> Array: ...
    @property
    def action(self) -> Array: ...
    @property
    def mean(self) -> Array: ...
    @property
    def log_std(self) -> Array: ...


class Weights(NamedTuple):
    """x [N] of the executed actions and y [N, M] of the fresh ones."""

    taken: Array
    sampled: Array


def fresh_actions(key: PRNGKeyArray, decisions: Choices, count: int) -> Float[Array, "N M Z"]:
    """`count` actions of the acting policy for every decision."""
    mean, std = decisions.mean[:, None], jnp.exp(decisions.log_std)[:, None]
    shape = (mean.shape[0], count, mean.shape[2])
    return mean + std * jax.random.normal(key, shape, mean.dtype)


def standardised(decisions: Choices, actions: Float[Array, "N M Z"]) -> Float[Array, "N M Z"]:
    """(z − mean) / std under the acting policy."""
    return (actions - decisions.mean[:, None]) * jnp.exp(-decisions.log_std)[:, None]


def leave_one_out(values: Float[Array, "N M"]) -> Float[Array, "N M"]:
    """Each value minus the mean of the others, a baseline that does not depend on its own action.

    With one fresh action there is no other, and no baseline.
    """
    count = values.shape[1]
    if count == 1:
        return values
    return (values - jnp.mean(values, axis=1, keepdims=True)) * (count / (count - 1))


def reinforce(decisions: Decisions, count: int) -> Weights:
    """REINFORCE: x = Z_n."""
    return _only_taken(decisions, decisions.to_go, count)


def advantage(decisions: Decisions, v: Float[Array, " N"], count: int) -> Weights:
    """Advantage: x = Z_n − V(s_n); unbiased for any V."""
    return _only_taken(decisions, decisions.to_go - v, count)


def q_critic(decisions: Decisions, q: Float[Array, "N M"]) -> Weights:
    """Q-critic: y = Q(s_n, z_nm)."""
    return _masked(decisions, jnp.zeros_like(q[:, 0]), leave_one_out(q))


def trajectory_cv(
    decisions: Decisions, q_taken: Float[Array, " N"], q: Float[Array, "N M"]
) -> Weights:
    """TrajCV: x = Z_n − Q(s_n, z_n) − Σ_{n' > n} (Q(s_n', z_n') − V(s_n')), y = Q(s_n, z_nm), with
    V = (1/M) Σ_m Q(s_n, z_nm); unbiased for any Q."""
    gap = (q_taken - jnp.mean(q, axis=1)) * decisions.weight
    taken = decisions.to_go - q_taken - future_sums(gap)
    return _masked(decisions, taken, leave_one_out(q))


def contributions(
    decisions: Decisions,
    ratio: Float[Array, "N M K"],
    outcome_reward: Float[Array, "N K"],
) -> Float[Array, "N M"]:
    """Σ_{n' > n} w(s_n, z_nm, U_n') R_n'.

    Args:
        ratio: h(z | s, u) / π(z | s) = w + 1 of every decision, fresh action and outcome.
        outcome_reward: reward of each decision by outcome.
    """
    later = future_sums(outcome_reward * decisions.weight[:, None])
    return jnp.einsum("nmk,nk->nm", ratio - 1.0, later)


def cocoa(
    decisions: Decisions, ratio: Float[Array, "N M K"], outcome_reward: Float[Array, "N K"]
) -> Weights:
    """COCOA, and HCA+ where outcomes are states: x = R_n, y = Σ_{n' > n} w(s_n, z_nm, U_n') R_n'."""
    later = contributions(decisions, ratio, outcome_reward)
    return _masked(decisions, decisions.reward, leave_one_out(later))


def hca(
    decisions: Decisions,
    ratio: Float[Array, "N M K"],
    outcome_reward: Float[Array, "N K"],
    reward_model: Float[Array, "N M"],
) -> Weights:
    """Original HCA: y = r̂(s_n, z_nm) + Σ_{n' > n} w R_n'."""
    later = contributions(decisions, ratio, outcome_reward)
    taken = jnp.zeros_like(decisions.reward)
    return _masked(decisions, taken, leave_one_out(reward_model + later))


def hca_return(decisions: Decisions, ratio_taken: Float[Array, " N"], count: int) -> Weights:
    """HCA-return: x = (1 − π/h(z_n | s_n, Z_n)) Z_n. Biased even with the exact h, unless every return
    may follow on every action."""
    return _only_taken(decisions, (1.0 - 1.0 / ratio_taken) * decisions.to_go, count)


def counterfactual_return(decisions: Decisions, ratio: Float[Array, "N M"]) -> Weights:
    """Counterfactual return: y = (h(z_nm | s_n, Z_n)/π − 1) Z_n."""
    later = (ratio - 1.0) * decisions.to_go[:, None]
    return _masked(decisions, jnp.zeros_like(decisions.reward), leave_one_out(later))


def _only_taken(decisions: Decisions, amount: Array, count: int) -> Weights:
    return _masked(decisions, amount, jnp.zeros((*amount.shape, count), amount.dtype))


def _masked(decisions: Decisions, taken: Array, sampled: Array) -> Weights:
    return Weights(taken * decisions.weight, sampled * decisions.weight[:, None])


# Outcomes of one episode: vectors [N, K, E] or [K, E], and which decision has which [N, K].


def kind_outcomes(decisions: Decisions) -> tuple[Array, Array, Array]:
    """U = R': the kinds of reward. Returns vectors [K, E], reward [N, K] and count [N, K]."""
    kinds = decisions.kind_reward.shape[1]
    vectors = jnp.eye(kinds, dtype=decisions.obs.dtype)
    return vectors, decisions.kind_reward, decisions.kind_count


def rewarded_outcomes(
    decisions: Decisions, codes: Float[Array, "N E"], limit: int
) -> tuple[Array, Array, Array]:
    """U = a vector of each decision: the first `limit` rewarded ones are the outcomes.

    Reward of later decisions has no outcome; `unmatched` counts them. Returns as `kind_outcomes`.
    """
    paid = (decisions.reward != 0.0) & decisions.valid
    order = jnp.cumsum(paid, dtype=jnp.int32) - 1  # which outcome a rewarded decision is
    member = jax.nn.one_hot(jnp.where(paid, order, -1), limit, dtype=decisions.reward.dtype)
    vectors = jnp.einsum("nk,ne->ke", member, codes)
    return vectors, member * decisions.reward[:, None], member


def unmatched(decisions: Decisions, outcome_reward: Float[Array, "N K"]) -> Array:
    """int32[], rewarded decisions whose reward is not all in an outcome."""
    missing = jnp.abs(decisions.reward - jnp.sum(outcome_reward, axis=1)) > 1e-4
    return jnp.sum(missing & decisions.valid, dtype=jnp.int32)
