"""Current and later inner episodes in the gradient (COALA, Fig. 12)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive
from agents.learning_aware.estimators import ESTIMATORS, score_weights
from agents.learning_aware.gradient_split import split_gradients, split_norms
from agents.learning_aware.policies import log_prob, tabular
from agents.learning_aware.shaping import against_naive
from envs.social.matrix import IteratedMatrixGame

GAME = IteratedMatrixGame(episode_length=3)
POLICY = tabular(5, 2, noise=1.0)
LEARNER = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings(step_size=4.0))
BATCH = 4
NAMES = ("coala", "batch_unaware", "m_fos", "myopic")


def play(keys, params):
    start = {"logits": jnp.zeros((5, 1))}
    one = lambda key: against_naive(  # noqa: E731
        key, GAME, POLICY, params, LEARNER, start, inner_episodes=3, batch=BATCH
    )[0]
    return jax.vmap(one)(keys)


def test_parts_differ_by_exactly_the_factors_of_the_theory():
    params = POLICY.init(jax.random.key(0))
    episodes = jax.jit(play)(jax.random.split(jax.random.key(1), 6), params)
    parts = split_gradients(POLICY, params, episodes, NAMES, GAME.episode_length)["logits"]
    coala, unaware, m_fos, myopic = parts
    # All credit the current inner episode alike; what M-FOS credits later ones with is COALA's, over B.
    for other in (unaware, m_fos, myopic):
        np.testing.assert_allclose(other[0], coala[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m_fos[1], coala[1] / BATCH, rtol=1e-5, atol=1e-6)
    assert not np.allclose(unaware[1], m_fos[1])
    assert (myopic[1] == 0).all()


def test_parts_add_up_to_the_estimator():
    params = POLICY.init(jax.random.key(0))
    episodes = jax.jit(play)(jax.random.split(jax.random.key(1), 6), params)

    def surrogate(params):
        weights = jax.vmap(lambda r: score_weights(ESTIMATORS["coala"], r, 3))(episodes.reward)
        weights = weights - weights.mean((0, 1), keepdims=True)
        logits = jax.vmap(lambda obs: POLICY.parallel(params, obs, None)[0])(episodes.obs)
        chosen = log_prob(logits, episodes.action)
        return jnp.sum(weights * chosen) / weights.shape[0]

    parts = split_gradients(POLICY, params, episodes, ("coala",), GAME.episode_length)
    np.testing.assert_allclose(
        parts["logits"].sum((0, 1)), jax.grad(surrogate)(params)["logits"], rtol=1e-4, atol=1e-5
    )


def test_norms_are_free_of_noise():
    """Many small groups and the same in few large ones agree, though a group's own gradient is mostly noise."""
    params = POLICY.init(jax.random.key(0))
    starts = {"logits": jnp.zeros((1, 5, 1))}

    def norms(group, groups):
        return jax.jit(
            lambda key: split_norms(
                *(key, GAME, POLICY, params, LEARNER, starts, ("coala", "m_fos")),
                inner_episodes=3,
                batch=BATCH,
                group=group,
                groups=groups,
            )
        )(jax.random.key(2))

    small, large = norms(32, 256), norms(512, 16)
    for name in ("current", "future"):
        # Centring over 32 meta-episodes scales what they have in common by 31/32.
        np.testing.assert_allclose(getattr(small, name), getattr(large, name), rtol=0.15)
    ratio = 10 ** (large.log_ratio[0] - large.log_ratio[1])
    assert ratio == pytest.approx(BATCH, rel=1e-3)


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="groups is 1; allowed: at least 2"):
        split_norms(
            *(jax.random.key(0), GAME, POLICY, {}, LEARNER, {}, ("coala",)),
            inner_episodes=1,
            batch=1,
            group=1,
            groups=1,
        )
