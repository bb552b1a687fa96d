"""Contribution coefficients learned by classification in hindsight, or by contrast.

COCOA (arXiv 2306.16803), section 3.2 and appendix. A network that sees a state, a later outcome u'
and the policy is asked which action was taken. Outcomes come as `Outcomes`: K vectors and which step
has which, so K reward classes cost T K A and the general case, outcomes = steps, T T A.
Letters: T steps, K outcomes, A actions, D and E entries of observation and outcome vector.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit.estimators import future_sums
from agents.credit.networks import Params, linear_init
from agents.credit.trajectory import Trajectory

_LEAST = 1e-6  # probabilities that the network tells apart from 0


@struct.dataclass
class Outcomes:
    """Rewarding outcomes of one trajectory.

    Attributes:
        vectors: float[K, E], what the network sees.
        member: float[T, K], 1 where step t has outcome k; a step may have none.
    """

    vectors: Float[Array, "*b K E"]
    member: Float[Array, "*b T K"]


def hypernetwork_init(
    key: PRNGKeyArray, obs_dim: int, outcome_dim: int, actions: int, width: int = 256
) -> Params:
    """Parameters of `hypernetwork`."""
    keys = jax.random.split(key, 3)
    heads = linear_init(keys[1], width, 2 * actions), linear_init(keys[2], width, 4 * actions**2)
    # Faster on a CPU: b and G side by side, one product instead of two; and outputs first, for the product
    # that is the weights' gradient.
    together = {name: jnp.concatenate([h[name] for h in heads], axis=-1).T for name in heads[0]}
    hidden = linear_init(keys[0], obs_dim + outcome_dim, width)
    # Apart, since the first layer of a state is computed once for all its outcomes, and the other way round.
    of_obs, of_outcome = jnp.split(hidden.pop("w"), [obs_dim])
    return {"hidden": {"obs": of_obs, "outcome": of_outcome, **hidden}, "heads": together}


def hypernetwork(
    params: Params,
    obs: Float[Array, "*b T D"],
    vectors: Float[Array, "*b T K E"] | Float[Array, "*b K E"],
    log_policy: Float[Array, "*b T A"],
) -> Float[Array, "*b T K A"]:
    """x = b(s, u) + G(s, u) φ with φ = (log π, log(1 − π)), for all pairs of states and outcomes.

    Args:
        vectors: outcomes that all states of a trajectory share [K, E], or each state's own [T, K, E].
    """
    hidden, heads = params["hidden"], params["heads"]
    # The first layer is linear in (obs, u), so its halves are computed once per state and outcome.
    of_obs = _layer(obs, hidden["obs"], hidden["b"])
    of_outcome = _layer(vectors, hidden["outcome"])
    if of_outcome.ndim == of_obs.ndim:
        of_outcome = of_outcome[..., None, :, :]
    z = jax.nn.relu(of_obs[..., None, :] + of_outcome)  # [*b, T, K, width]
    y = jax.nn.relu(_layer(z, heads["w"].T, heads["b"]))
    # Products with ones and zeros: a CPU would copy and sum parts of the last axis number by number.
    of_feature, of_action = _heads(log_policy.shape[-1], y.dtype)
    factors = jnp.matmul(_policy_features(log_policy), of_feature, precision="highest")
    return _layer(y * factors[..., None, :], of_action)


def _layer(
    x: Float[Array, "*b i"], w: Float[Array, "i o"], bias: Float[Array, " o"] | None = None
) -> Float[Array, "*b o"]:
    """x w + bias. As a product of two matrices, whose gradient is faster on a CPU than with more axes."""
    rows = x.reshape(-1, x.shape[-1]) @ w
    rows = rows if bias is None else rows + bias[None]
    return rows.reshape(*x.shape[:-1], w.shape[1])


def _policy_features(log_policy: Float[Array, "*b A"]) -> Float[Array, "*b F"]:
    """1 and φ, with which b and G are multiplied."""
    # The policy is ε-mixed; the floors only matter to those who use it without.
    rest = jnp.log(jnp.maximum(-jnp.expm1(log_policy), _LEAST))
    least = jnp.maximum(log_policy, math.log(_LEAST))
    return jnp.concatenate([jnp.ones_like(log_policy[..., :1]), least, rest], axis=-1)


def _heads(actions: int, dtype: Any) -> tuple[Float[Array, "F O"], Float[Array, "O A"]]:
    """Which policy feature each output of the heads multiplies, with its sign, and which action's x it is part of.

    b and G are differences of two rectified outputs each, so that O = 2 A + 4 A².
    """
    each = np.eye(1 + 2 * actions)
    bias, gain = np.repeat(each[:, :1], actions, axis=1), np.tile(each[:, 1:], actions)
    one, several = np.eye(actions), np.repeat(np.eye(actions), 2 * actions, axis=0)
    of_feature = np.concatenate([bias, -bias, gain, -gain], axis=1)
    of_action = np.concatenate([one, one, several, several])
    return jnp.asarray(of_feature, dtype), jnp.asarray(of_action, dtype)


def hypernetwork_of_states(
    params: Params,
    obs: Float[Array, "S D"],
    vectors: Float[Array, "K E"],
    log_policy: Float[Array, "S A"],
    rows: int = 64,
) -> Float[Array, "S K A"]:
    """`hypernetwork` of every state of an MDP and every outcome, `rows` states at a time."""

    def of_state(row: tuple[Array, Array]) -> Array:
        return hypernetwork(params, row[0][None], vectors, row[1][None])[0]

    return jax.lax.map(of_state, (obs, log_policy), batch_size=rows)


def classification_ratio(
    x: Float[Array, "T K A"], log_policy: Float[Array, "T A"]
) -> Float[Array, "T K A"]:
    """h/π with h = softmax(x + log π), so that Σ_a π (h/π − 1) = 0 by construction.

    1 (no contribution) for an action of probability 0: h/π is 0/0 there, no data says more, and the
    gradient multiplies it by ∇π(a) = 0. `exact.ratio_from_hindsight`, which is called eagerly, refuses.
    """
    log_policy = log_policy[:, None]
    ratio = jnp.exp(jax.nn.log_softmax(x + log_policy, axis=-1) - log_policy)
    return jnp.where(log_policy > -jnp.inf, ratio, 1.0)


def contrastive_ratio(
    x: Float[Array, "T K A"], log_policy: Float[Array, "T A"], clip: bool
) -> Float[Array, "T K A"]:
    """h/π = exp(x), with `clip` at most 1/π; 1 for an action of probability 0, as above."""
    log_policy = log_policy[:, None]
    ratio = jnp.exp(jnp.minimum(x, -log_policy) if clip else x)
    return jnp.where(log_policy > -jnp.inf, ratio, 1.0)


def learned_ratio(
    x: Float[Array, "T K A"], log_policy: Float[Array, "T A"], loss: str, clip: bool
) -> Float[Array, "T K A"]:
    """h/π of the network's x for the `hindsight_loss` that it was trained with."""
    if loss == "contrastive":
        return contrastive_ratio(x, log_policy, clip)
    return classification_ratio(x, log_policy)


def pair_counts(
    trajectory: Trajectory, outcomes: Outcomes, mask_zero_reward: bool
) -> Float[Array, "T K"]:
    """How many later steps t' > t have outcome k: the weight of the pair (t, k) in the loss.

    Steps after the episode's end never count. With `mask_zero_reward` steps without reward don't.
    """
    return future_sums(outcomes.member * counting_steps(trajectory, mask_zero_reward)[:, None])


def counting_steps(trajectory: Trajectory, mask_zero_reward: bool) -> Float[Array, "*b T"]:
    """1 where a step counts as a later one in the loss, else 0: before the episode's end, and with
    `mask_zero_reward` where it pays."""
    keep = trajectory.alive
    if mask_zero_reward:
        keep = keep * (trajectory.reward != 0.0).astype(keep.dtype)
    return keep


def pair_weights(trajectory: Trajectory, counts: Float[Array, "T K"]) -> Float[Array, "T K A"]:
    """Weight of each pair and taken action in a loss: pairs (t, k) count as `counts` says, and all pairs
    of a trajectory together as 1, or 0 if there are none."""
    total = jnp.sum(counts)
    share = counts / jnp.where(total > 0, total, 1.0)
    return share[..., None] * trajectory.taken[:, None]


def classification_loss(
    x: Float[Array, "T K A"], log_policy: Float[Array, "T A"], weights: Float[Array, "T K A"]
) -> Float[Array, ""]:
    """Cross-entropy of the taken action given each later outcome, averaged over pairs (App. D).

    Args:
        weights: of `pair_weights`, or their sum over trajectories that share x.
    """
    log_policy = log_policy[:, None]
    log_h = jax.nn.log_softmax(x + log_policy, axis=-1)
    log_h = jnp.where(log_policy > -jnp.inf, log_h, 0.0)  # never taken: 0 × log 0
    return -jnp.sum(weights * log_h)


def contrastive_loss(
    x: Float[Array, "T K A"], log_policy: Float[Array, "T A"], weights: Float[Array, "T K A"]
) -> Float[Array, ""]:
    """−log σ(x_{A_t}) − Σ_a π(a | S_t) log(1 − σ(x_a)), averaged over pairs; best at exp(x) = h/π.

    Args:
        weights: as in `classification_loss`.
    """
    taken = jnp.sum(weights * jax.nn.log_sigmoid(x))
    others = jnp.einsum("tka,ta->tk", jax.nn.log_sigmoid(-x), jnp.exp(log_policy))
    return -taken - jnp.sum(jnp.sum(weights, axis=-1) * others)


# Outcomes of one trajectory, by encoding.


def state_outcomes(trajectory: Trajectory, mask_zero_reward: bool = False) -> Outcomes:
    """U = S': every step is its own outcome, K = T; with `mask_zero_reward` only steps that pay are outcomes.

    Outcome k shows the observation of step k, unless it has no member.
    """
    steps, dtype = trajectory.obs[:-1], trajectory.reward.dtype
    use = jnp.ones_like(trajectory.reward, bool)
    if mask_zero_reward:
        use = (trajectory.alive > 0) & (trajectory.reward != 0.0)
    # Outcomes without a member repeat a vector, which `agents.credit.distinct` evaluates once.
    vectors = jnp.where(use[:, None], steps, steps[jnp.argmax(use)][None])
    return Outcomes(vectors=vectors, member=jnp.diag(use.astype(dtype)))


def reward_outcomes(
    trajectory: Trajectory, values: Float[Array, " K"], tolerance: float = 1e-4
) -> Outcomes:
    """U = R': the possible rewards, matched to 4 decimals. A reward that matches none has no
    outcome, which `unmatched` counts."""
    distance = jnp.abs(trajectory.reward[:, None] - values[None])
    best = jax.nn.one_hot(jnp.argmin(distance, axis=1), values.shape[0], dtype=values.dtype)
    return Outcomes(
        vectors=jnp.eye(values.shape[0], dtype=values.dtype),
        member=best * (distance < tolerance).astype(values.dtype),
    )


def code_outcomes(
    trajectory: Trajectory, bits: Float[Array, "T E"], limit: int, mask_zero_reward: bool
) -> Outcomes:
    """U = f(S', A') as binary vectors: the distinct ones of a trajectory, `limit` at most.

    Steps beyond that many distinct vectors have no outcome, which `unmatched` counts.
    """
    # Distinct 31-bit hashes stand for distinct vectors; the chance that two collide is negligible.
    weights = jax.random.randint(jax.random.key(0), (bits.shape[1],), 1, 2**30, jnp.int32)
    hashed = jnp.sum(jnp.where(bits > 0, weights[None], 0), axis=1)  # wraps around
    hashed = jnp.bitwise_and(hashed, jnp.int32(2**31 - 1))
    use = trajectory.alive > 0
    if mask_zero_reward:
        use &= trajectory.reward != 0.0

    def pick(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        first = jnp.argmax(left)
        same = left & (hashed == hashed[first])
        return left & ~same, (jnp.where(left[first], bits[first], 0.0), same)

    _, (vectors, same) = jax.lax.scan(pick, use, None, length=limit)
    # Places that are left over repeat a vector, which `agents.credit.distinct` evaluates once.
    vectors = jnp.where(jnp.any(same, axis=1)[:, None], vectors, vectors[:1])
    return Outcomes(vectors=vectors, member=same.T.astype(bits.dtype))


def unmatched(trajectory: Trajectory, outcomes: Outcomes) -> Array:
    """int32[], rewarded steps that have no outcome, whose reward would be credited to nobody."""
    paid = (trajectory.reward != 0.0) & (trajectory.alive > 0)
    return jnp.sum(paid & (jnp.sum(outcomes.member, axis=1) == 0.0), dtype=jnp.int32)
