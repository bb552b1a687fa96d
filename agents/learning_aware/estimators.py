"""COALA-PG and its relatives (arXiv 2410.18636, section 3 and App. E).

Each estimator multiplies the scores S_l^b = ∇ log π(a_l^b | h_l^b) of B chains of L = M·T steps by weights and adds them
up. What distinguishes them is where the factors 1/B go. Letters: B chains of one meta-episode (never merged with the K
meta-episodes), L long time, T inner episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from agents.references import is_reference, load


@dataclass(frozen=True)
class Estimator:
    """Where the returns of the current and of the later inner episodes go.

    Attributes:
        average_future: the return of later inner episodes is averaged over the B chains; a chain shapes the co-player of
            all chains.
        normalize_current: the return of the current inner episode is divided by B.
        average_current: it is averaged over the chains instead (the full form; unbiased, but noisier).
        use_future: later inner episodes count at all.
        reduction: over b; "sum" or "mean".
        weights: another rule altogether: (rewards [B, L], T) → W [B, L] of `score_weights`; see `weighted_by`.
    """

    average_future: bool
    normalize_current: bool
    reduction: Literal["sum", "mean"]
    average_current: bool = False
    use_future: bool = True
    weights: Callable[[Float[Array, "B L"], int], Float[Array, "B L"]] | None = None

    @property
    def needs_reinforce(self) -> bool:
        """Whether there is no form of it with a critic."""
        return self.average_current or not self.use_future or self.weights is not None


def weighted_by(weights: Callable[[Float[Array, "B L"], int], Float[Array, "B L"]]) -> Estimator:
    """An estimator of your own, in any file (`pool.estimator`): Σ_b Σ_l W_l^b S_l^b with W = `weights`(rewards, T)."""
    # It may average over chains, and what centring may take away is judged as if it did.
    return Estimator(average_future=True, normalize_current=False, reduction="sum", weights=weights)


ESTIMATORS: dict[str, Estimator] = {
    "coala": Estimator(average_future=True, normalize_current=True, reduction="sum"),
    "full": Estimator(
        average_future=True, normalize_current=False, average_current=True, reduction="sum"
    ),
    "batch_unaware": Estimator(average_future=False, normalize_current=False, reduction="mean"),
    # As in its public code; the sum form is B times as long, which only matters beside other terms.
    "m_fos": Estimator(average_future=True, normalize_current=False, reduction="mean"),
    "myopic": Estimator(
        average_future=False, normalize_current=False, use_future=False, reduction="mean"
    ),
}


def by_name(name: str) -> Estimator:
    """One of `ESTIMATORS`, or a user's own, `file.py:NAME`. Raises ValueError with all names for an unknown one."""
    if is_reference(name):
        found = load(name)
        if not isinstance(found, Estimator):
            raise ValueError(
                f"estimator is '{name}', a {type(found).__name__}; allowed: an Estimator (`weighted_by` makes one)"
            )
        return found
    if name not in ESTIMATORS:
        raise ValueError(
            f"estimator is '{name}'; allowed: {', '.join(ESTIMATORS)}, or file.py:NAME"
        )
    return ESTIMATORS[name]


def _check_length(x: jax.Array, inner_length: int) -> None:
    """A last inner episode that is cut short would get no boundary, and with it no later episodes."""
    if inner_length < 1 or x.shape[1] % inner_length:
        raise ValueError(
            f"inner_length is {inner_length} in chains of {x.shape[1]} steps; allowed: divisors of that length"
        )


def current_return(rewards: Float[Array, "B L"], inner_length: int) -> Float[Array, "B L"]:
    """C_l^b: rewards from step l to the end of its inner episode."""
    _check_length(rewards, inner_length)
    inner = rewards.reshape(rewards.shape[0], -1, inner_length)
    return jnp.flip(jnp.cumsum(jnp.flip(inner, 2), 2), 2).reshape(rewards.shape)


def future_return(rewards: Float[Array, "B L"], inner_length: int) -> Float[Array, "B L"]:
    """F_l^b: rewards of all inner episodes after that of step l."""
    episode = rewards.reshape(rewards.shape[0], -1, inner_length).sum(2)  # [B, M]
    later = jnp.flip(jnp.cumsum(jnp.flip(episode, 1), 1), 1) - episode
    return jnp.repeat(later, inner_length, axis=1)


def score_weights(
    estimator: Estimator, rewards: Float[Array, "B L"], inner_length: int
) -> Float[Array, "B L"]:
    """Weights W with gradient estimate Σ_b Σ_l W_l^b S_l^b, the reduction over b included.

    COALA-PG: W = C/B + mean_b' F^b', unbiased for the gradient of E[(1/B) Σ_b Σ_l R_l^b] against any co-player whose
    learning does not depend on the ego's parameters other than through what it plays.
    """
    if estimator.weights is not None:
        _check_length(rewards, inner_length)
        found = estimator.weights(rewards, inner_length)
        if found.shape != rewards.shape or not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(
                f"the estimator's weights are {found.dtype}{list(found.shape)}; allowed: floating, of the rewards' "
                f"shape {list(rewards.shape)}"
            )
        return found
    current, future = split_weights(estimator, rewards, inner_length)
    return current + future


def split_weights(
    estimator: Estimator, rewards: Float[Array, "B L"], inner_length: int
) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
    """The two parts of `score_weights`: from the current inner episode, and from later ones.

    Raises:
        ValueError: an estimator with weights of its own, which has no such parts.
    """
    if estimator.weights is not None:
        raise ValueError(f"the estimator has its own weights; allowed: {', '.join(ESTIMATORS)}")
    batch = rewards.shape[0]
    current = current_return(rewards, inner_length)
    future = future_return(rewards, inner_length)
    if estimator.average_current:
        current = jnp.broadcast_to(jnp.mean(current, 0, keepdims=True), current.shape)
    if estimator.normalize_current:
        current = current / batch
    if estimator.average_future:
        future = jnp.broadcast_to(jnp.mean(future, 0, keepdims=True), future.shape)
    if not estimator.use_future:
        future = jnp.zeros_like(future)
    scale = 1.0 if estimator.reduction == "sum" else 1.0 / batch
    return scale * current, scale * future


def batch_lambda_return(
    x: Float[Array, "B L"],
    next_value: Float[Array, "B L"],
    *,
    inner_length: int,
    discount: float,
    lam: float,
    average_future: bool,
    normalize_current: bool,
) -> Float[Array, "B L"]:
    """The paper's batch λ-returns, one reverse scan with an own and a batch-mean accumulator.

    Going backwards: if `average_future`, at the last step of an inner episode all accumulators are overwritten by the
    batch mean, *before* that step's own signal is added; then
        acc ← x/N + g ((1−λ) v + λ acc),  N = B if `normalize_current` else 1,
        mean ← mean_b(x + g ((1−λ) v + λ mean)).

    Args:
        x: per-step signal: rewards for value targets, TD errors for advantages.
        next_value: v_l = V(h_{l+1}), also across inner boundaries; only counts for λ < 1.
        discount: g.
        lam: λ.

    Returns:
        acc after each step. The accumulators start at 0: the meta-trajectory ends.
    """
    _check_length(x, inner_length)
    batch, length = x.shape
    scale = 1.0 / batch if normalize_current else 1.0
    boundary = (jnp.arange(length) + 1) % inner_length == 0

    def backward(carry, inputs):
        own, mean = carry  # [B], []
        x_l, v_l, ends = inputs
        if average_future:
            own = jnp.where(ends, mean, own)
        bootstrap = (1 - lam) * v_l
        own = scale * x_l + discount * (bootstrap + lam * own)
        mean = jnp.mean(x_l + discount * (bootstrap + lam * mean))
        return (own, mean), own

    zero = (jnp.zeros_like(x[:, 0]), jnp.zeros((), x.dtype))
    _, returns = jax.lax.scan(backward, zero, (x.T, next_value.T, boundary), reverse=True)
    return returns.T


def advantages(
    estimator: Estimator,
    rewards: Float[Array, "B L"],
    values: Float[Array, "B L"],
    *,
    inner_length: int,
    discount: float,
    gae_lambda: float,
) -> Float[Array, "B L"]:
    """Generalised advantages with the estimator's weighting, per chain; the reduction over b is the caller's.

    TD errors run across inner boundaries: the critic's horizon is the whole meta-trajectory. With γ = λ = 1 the COALA
    advantage is C/B + mean_b' F^b' − V(h_l^b)/B − (1/B) Σ_b'≠b V(h^b' where the next inner episode starts), exact for any
    critic. The full and myopic forms have no such scan.

    Raises:
        ValueError: an estimator without this form.
    """
    if estimator.needs_reinforce:
        raise ValueError(
            "estimator is full, myopic or of one's own; allowed with a critic: coala, batch_unaware, m_fos"
        )
    next_values = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    errors = rewards + discount * next_values - values
    return batch_lambda_return(
        errors,
        next_values,
        inner_length=inner_length,
        discount=discount * gae_lambda,
        lam=1.0,
        average_future=estimator.average_future,
        normalize_current=estimator.normalize_current,
    )


def value_targets(
    rewards: Float[Array, "B L"],
    values: Float[Array, "B L"],
    *,
    inner_length: int,
    discount: float,
    td_lambda: float,
    average_future: bool = False,
) -> Float[Array, "B L"]:
    """λ-returns of the plain own-chain return, without any 1/B, so that one critic serves against all co-players.

    `average_future` lowers their variance against naive co-players and is exact only where the chains are exchangeable
    given the history; the paper does not say, so the default is off.
    """
    next_values = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    return batch_lambda_return(
        rewards,
        next_values,
        inner_length=inner_length,
        discount=discount,
        lam=td_lambda,
        average_future=average_future,
        normalize_current=False,
    )
