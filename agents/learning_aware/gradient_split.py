"""How much of an estimator's gradient comes from later inner episodes (COALA, Fig. 12).

Letters: E estimators, K meta-episodes of a group, G groups, B chains, L long time.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from agents.learning_aware.estimators import by_name, split_weights
from agents.learning_aware.naive import NaiveLearner
from agents.learning_aware.policies import Params, Policy, log_prob
from agents.learning_aware.shaping import MetaEpisode, against_naive
from envs.social.game import SocialGame


@struct.dataclass
class SplitNorms:
    """Squared norms of the mean gradient against naive learners, by estimator; without critic.

    Attributes:
        current: of the part that credits the rest of the current inner episode.
        future: of the part that credits later inner episodes.
    """

    current: Float[Array, " E"]
    future: Float[Array, " E"]

    @property
    def log_ratio(self) -> Float[Array, " E"]:
        """log10 of ‖future‖ / ‖current‖."""
        return 0.5 * (jnp.log10(self.future) - jnp.log10(self.current))


def split_norms(
    key: PRNGKeyArray,
    game: SocialGame,
    policy: Policy,
    params: Params,
    learner: NaiveLearner,
    starts: Params,
    estimators: Sequence[str],
    *,
    inner_episodes: int,
    batch: int,
    group: int,
    groups: int,
) -> SplitNorms:
    """Both norms over group · groups meta-episodes, all estimators on the same ones.

    The norm of a mean over n samples is too long by its noise, most for the noisiest part. Comparing the mean's norm with
    those of the groups takes that out: E‖g_group‖² − E‖mean‖² = (1 − 1/G) tr Cov(g_group).

    Args:
        starts: naive co-players' first parameters, leaves [S, ...]; drawn uniformly.
        group: K meta-episodes that are played at once; signals are centred per step over them, which shortens
            the later part by up to 1/K.
        groups: G, at least 2.
    """
    if groups < 2:
        raise ValueError(f"groups is {groups}; allowed: at least 2")
    count = jax.tree.leaves(starts)[0].shape[0]

    def one_group(key: PRNGKeyArray) -> Params:
        key_start, key_play = jax.random.split(key)
        chosen = jax.random.randint(key_start, (group,), 0, count)
        episodes = jax.vmap(
            lambda k, i: against_naive(
                k,
                game,
                policy,
                params,
                learner,
                jax.tree.map(lambda x: x[i], starts),
                inner_episodes=inner_episodes,
                batch=batch,
            )[0]
        )(jax.random.split(key_play, group), chosen)
        return split_gradients(policy, params, episodes, estimators, game.episode_length)

    def add(carry, key):
        total, squares = carry
        gradient = one_group(key)
        return (jax.tree.map(jnp.add, total, gradient), squares + _square_norm(gradient)), None

    keys = jax.random.split(key, groups)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one_group, jax.random.key(0))
    )
    (total, squares), _ = jax.lax.scan(add, (zero, _square_norm(zero)), keys)
    of_mean = _square_norm(jax.tree.map(lambda x: x / groups, total))
    unbiased = (groups * of_mean - squares / groups) / (groups - 1)
    return SplitNorms(current=unbiased[:, 0], future=unbiased[:, 1])


def split_gradients(
    policy: Policy,
    params: Params,
    episodes: MetaEpisode,
    estimators: Sequence[str],
    inner_length: int,
) -> Params:
    """Gradients of the current and of the later inner episodes [E, 2, ...], mean over K meta-episodes [K, B, L]."""
    k, batch, length = episodes.reward.shape
    obs, action = (x.reshape(k * batch, *x.shape[2:]) for x in (episodes.obs, episodes.action))

    def scores(params: Params) -> Float[Array, "C L"]:
        return log_prob(policy.parallel(params, obs, None)[0], action)

    _, pull = jax.vjp(scores, params)

    def weigh(name: str) -> Float[Array, "2 K B L"]:
        return jnp.stack(
            jax.vmap(lambda r: split_weights(by_name(name), r, inner_length))(episodes.reward)
        )

    weights = jnp.stack([weigh(name) for name in estimators])  # [E, 2, K, B, L]
    weights = weights - jnp.mean(weights, axis=(2, 3), keepdims=True)
    weights = weights.reshape(len(estimators), 2, k * batch, length) / k
    return jax.vmap(jax.vmap(lambda w: pull(w)[0]))(weights)


def _square_norm(tree: Params) -> Float[Array, "E 2"]:
    return sum(jnp.sum(jnp.square(x), axis=tuple(range(2, x.ndim))) for x in jax.tree.leaves(tree))  # pyright: ignore[reportReturnType]
