"""Hindsight networks for continuous actions: log h(z | s, u) / π(z | s), and how it is learned.

`density_ratio`: a discriminator tells the action that led to an outcome from fresh actions of the policy,
and is best where exp(x) is the ratio (COCOA, arXiv 2306.16803, appendix on contrastive learning).

`gaussian`: a network learns mean and spread of the action given the outcome, by maximum likelihood. The
score of a Gaussian policy is linear in (z - μ) and (z - μ)², so these two moments are all of h that the
gradient depends on: h / π is replaced by its projection on those two, `moment_ratio`. There is much less to
learn than a density, and a polynomial has neither the exponential's variance nor a need to be cut off.

Letters as in `sampled`; F features of a state, E entries of an outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agents.credit import sampled
from agents.credit.config import SampledCreditConfig
from agents.credit.networks import Params, linear, linear_init, mlp
from agents.credit.sampled import Choices

_SPREAD = 1.0  # log std given the outcome may differ this much from the policy's


@dataclass(frozen=True)
class HindsightNetwork:
    """Attributes:
    init: key -> parameters, with every ratio 1.
    ratio: (parameters, choices, actions [N, M, Z], outcomes [K, E] or [N, K, E]) -> [N, M, K].
    loss: (parameters, choices, key, outcomes, how often each pair occurs [N, K]) -> summed loss [K].
    """

    init: Callable[[PRNGKeyArray], Params]
    ratio: Callable[[Params, Choices, Array, Array], Array]
    loss: Callable[[Params, Choices, PRNGKeyArray, Array, Array], Array]


def make_hindsight(
    config: SampledCreditConfig, features: int, actions: int, outcomes: int
) -> HindsightNetwork:
    """The network of `config.hindsight`.

    Args:
        features, actions, outcomes: entries of `state_features`, of an action and of an outcome.
    """
    if config.hindsight == "gaussian":
        return _gaussian(features, actions, outcomes, config.width)

    def log_ratio(params: Params, d: Choices, z: Array, vectors: Array) -> Array:
        return pair_logits(params, state_features(d), sampled.standardised(d, z), vectors)

    def loss(params: Params, d: Choices, key: PRNGKeyArray, vectors: Array, counts: Array) -> Array:
        fresh = sampled.fresh_actions(key, d, config.samples)
        x = log_ratio(params, d, jnp.concatenate([d.action[:, None], fresh], 1), vectors)
        return ratio_loss(x[:, 0], x[:, 1:], counts)

    def ratio(params: Params, d: Choices, z: Array, vectors: Array) -> Array:
        return jnp.exp(jnp.minimum(log_ratio(params, d, z, vectors), jnp.log(config.max_ratio)))

    def init(key: PRNGKeyArray) -> Params:
        return pair_init(key, features, actions, outcomes, config.width)

    return HindsightNetwork(init, ratio, loss)


def state_features(decisions: Choices) -> Float[Array, "N F"]:
    """What networks see of a state: the observation, standardised over its entries, and the policy
    there, which makes targets depend less on its past (COCOA, Prop. 5)."""
    obs = decisions.obs
    centred = obs - jnp.mean(obs, axis=-1, keepdims=True)
    scale = jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-6)
    return jnp.concatenate([centred / scale, decisions.mean, decisions.log_std], axis=-1)


def pair_init(
    key: PRNGKeyArray, state: int, action: int, outcome: int, width: int, outputs: int = 1
) -> Params:
    """Parameters of `pair_logits`; the last layer is zero, so that every ratio starts at 1."""
    keys = jax.random.split(key, 2)
    last = {"w": jnp.zeros((width, outputs)), "b": jnp.zeros(outputs)}
    return {
        "first": linear_init(keys[0], state + action + outcome, width),
        "rest": [linear_init(keys[1], width, width), last],
    }


def pair_logits(
    params: Params,
    state: Float[Array, "N F"],
    actions: Float[Array, "N M Z"],
    outcomes: Float[Array, "K E"] | Float[Array, "N K E"],
) -> Float[Array, "N M K"]:
    """x(s, z, u) of every decision, action and outcome.

    Args:
        actions: standardised.
        outcomes: shared by all decisions [K, E], or each one's own [N, K, E].
    """
    # The first layer is linear: its three parts are computed once each.
    weights, F, Z = params["first"]["w"], state.shape[-1], actions.shape[-1]
    of_state = state @ weights[:F] + params["first"]["b"][None]
    of_action = actions @ weights[F : F + Z]
    of_outcome = outcomes @ weights[F + Z :]
    if of_outcome.ndim == 2:
        of_outcome = of_outcome[None]
    hidden = jax.nn.relu(of_state[:, None, None] + of_action[:, :, None] + of_outcome[:, None])
    return mlp(params["rest"], hidden)[..., 0]


def ratio_loss(
    x_taken: Float[Array, "N K"], x_fresh: Float[Array, "N M K"], counts: Float[Array, "N K"]
) -> Float[Array, " K"]:
    """Σ over pairs of −log σ(x(z_n)) − (1/M) Σ_m log σ(−x(z_nm)), by how often each occurs; per outcome."""
    others = jnp.mean(jax.nn.log_sigmoid(-x_fresh), axis=1)
    return -jnp.sum(counts * (jax.nn.log_sigmoid(x_taken) + others), axis=0)


def kind_mean(losses: Float[Array, " K"], counts: Float[Array, " K"]) -> Float[Array, ""]:
    """Each outcome's mean loss (summed losses over counts), averaged over the outcomes that occur."""
    each = losses / jnp.maximum(counts, 1.0)
    return jnp.sum(each) / jnp.maximum(jnp.sum((counts > 0).astype(each.dtype)), 1.0)


def _gaussian(features: int, actions: int, outcomes: int, width: int) -> HindsightNetwork:
    def moments(params: Params, d: Choices, vectors: Array) -> tuple[Array, Array]:
        """Mean and log std [N, K, Z] of z given s and u, where the policy's are 0 and 0."""
        if vectors.ndim == 2:
            vectors = jnp.broadcast_to(vectors[None], (d.action.shape[0], *vectors.shape))
        state = state_features(d)[:, None]
        state = jnp.broadcast_to(state, (*vectors.shape[:2], state.shape[-1]))
        first = linear(params["first"], jnp.concatenate([state, vectors], axis=-1))
        mean, spread = jnp.split(mlp(params["rest"], jax.nn.relu(first)), 2, axis=-1)
        return mean, _SPREAD * jnp.tanh(spread)

    def ratio(params: Params, d: Choices, z: Array, vectors: Array) -> Array:
        return moment_ratio(*moments(params, d, vectors), sampled.standardised(d, z))

    def loss(params: Params, d: Choices, key: PRNGKeyArray, vectors: Array, counts: Array) -> Array:
        del key
        found = moment_loss(
            *moments(params, d, vectors), sampled.standardised(d, d.action[:, None])[:, 0]
        )
        return jnp.sum(counts * found, axis=0)

    def init(key: PRNGKeyArray) -> Params:
        return pair_init(key, features, 0, outcomes, width, 2 * actions)

    return HindsightNetwork(init, ratio, loss)


def moment_ratio(
    mean: Float[Array, "N K Z"], log_std: Float[Array, "N K Z"], actions: Float[Array, "N M Z"]
) -> Float[Array, "N M K"]:
    """1 + Σ_d m_d z_d + ½ Σ_d (m_d² + s_d² − 1)(z_d² − 1): the only function linear in z and z² by which a
    standard normal z gets the moments m and s. It may be negative, as a ratio may not.

    Args:
        actions: standardised.
    """
    second = jnp.square(mean) + jnp.exp(2.0 * log_std) - 1.0
    linear_part = jnp.einsum("nkz,nmz->nmk", mean, actions)
    return 1.0 + linear_part + 0.5 * jnp.einsum("nkz,nmz->nmk", second, jnp.square(actions) - 1.0)


def moment_loss(
    mean: Float[Array, "N K Z"], log_std: Float[Array, "N K Z"], taken: Float[Array, "N Z"]
) -> Float[Array, "N K"]:
    """−log N(z; m, s) + log N(z; 0, 1): 0 where nothing is known.

    Args:
        taken: standardised.
    """
    taken = taken[:, None]
    of_h = jnp.square((taken - mean) * jnp.exp(-log_std)) + 2.0 * log_std
    return 0.5 * jnp.sum(of_h - jnp.square(taken), axis=-1)
