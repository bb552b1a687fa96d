"""COALA-PG is unbiased, its relatives are wrong by what theory says: float64, all randomness enumerated."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive
from agents.learning_aware.estimators import ESTIMATORS, advantages, score_weights, split_weights
from agents.learning_aware.policies import Policy, tabular, tabular_by_episode
from envs.social.matrix import IteratedMatrixGame
from tests.agents.learning_aware.enumeration import (
    Problem,
    estimator_mean,
    estimator_variance,
    exact,
)

RULE = naive.PolicyGradientSettings(baseline="none", normalise=False, reduce_time="sum")
TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def problem(batch, inner_length=2, inner_episodes=2, ego=None, step_size=4.0):
    game = IteratedMatrixGame(episode_length=inner_length)
    learner = naive.policy_gradient(tabular(5, 2), replace(RULE, step_size=step_size))
    ego = ego or tabular_by_episode(5, 2, inner_length, inner_episodes)
    return Problem(game, ego, learner, inner_episodes, batch)


def co_params(key=None):
    shape = (5, 1)
    return {"logits": jnp.zeros(shape) if key is None else jax.random.normal(key, shape)}


def weights(name, p, data):
    make = lambda r: score_weights(ESTIMATORS[name], r, p.game.episode_length)  # noqa: E731
    return jax.jit(jax.vmap(make))(data[2])


def mean_of(name, p, params, data):
    return flat(estimator_mean(p, params, data, weights(name, p, data)))


def means(p, params, data, several):
    """`estimator_mean` of several weights in one compiled program."""
    one = lambda w: estimator_mean(p, params, data, w)  # noqa: E731
    found = jax.vmap(one)(jnp.stack(several))
    return [flat(jax.tree.map(lambda x, i=i: x[i], found)) for i in range(len(several))]


def flat(tree):
    return np.concatenate([np.asarray(x).reshape(-1) for x in jax.tree.leaves(tree)])


def pieces(p, params, data):
    """d, c_own and c_x of the spec: E[Σ_l S_l^b X] with X = C_l^b, F_l^b and, of the other chains, F_l^b'.

    From the rewards alone, so that nothing of the estimators is in them.
    """
    batch, inner_length = p.batch, p.game.episode_length
    reward = np.asarray(data[2])  # [n, B, L]
    later = np.flip(np.cumsum(np.flip(reward, 2), 2), 2)  # from step l to the end of everything
    ends = (np.arange(p.length) // inner_length + 1) * inner_length
    future = np.concatenate([later, np.zeros_like(later[..., :1])], 2)[..., ends]
    others = (future.sum(1, keepdims=True) - future) / (batch - 1)
    # The mean over b of what is the same for every chain.
    parts = (later - future, future, others)
    return means(p, params, data, [jnp.asarray(x / batch) for x in parts])


def remembering_ego(inner_length):
    """Logits of episode 2 depend on the chain's own last observation of episode 1."""

    def parallel(params, obs, reset):
        length = obs.shape[1]
        later = jnp.arange(length) >= inner_length
        memory = jnp.where(later[None], obs[:, inner_length - 1 : inner_length], 0)
        memory = memory if inner_length > 1 else memory + later[None].astype(jnp.int32)
        free = params["logits"][memory, obs]
        return jnp.stack([free, jnp.zeros_like(free)], -1), jnp.zeros(obs.shape)

    return Policy(lambda key: {}, lambda batch: (), None, parallel)


@pytest.fixture(scope="module")
def two():
    with jax.enable_x64(True):
        p = problem(batch=2)
        params = {"logits": jnp.zeros((2, 5, 1))}
        data = p.everything(co_params())
        value, gradient = exact(p, params, data)
        return p, params, data, float(value), flat(gradient)


class TestFixture:
    """The spec's fixture F: T = 2, M = 2, all logits zero, step 4."""

    EXACT = (
        (-0.22741298, 0.00433832, -0.10077543, 0.00221132, -0.13543497),
        (-0.25942717, -0.04689827, -0.07810173, -0.04689827, -0.07810173),
    )
    UNAWARE = (-0.23870649, -0.02908084, -0.08163772, -0.03014434, -0.09896748)

    def test_value_and_gradient_are_the_published_ones(self, two):
        _, _, _, value, gradient = two
        assert value == pytest.approx(1.63275627, abs=1e-8)
        np.testing.assert_allclose(gradient, np.ravel(self.EXACT), atol=1e-8)

    @pytest.mark.parametrize("name", ["coala", "full"])
    def test_coala_is_exact(self, two, name):
        p, params, data, _, gradient = two
        np.testing.assert_allclose(mean_of(name, p, params, data), gradient, atol=TOLERANCE)

    def test_coala_is_exact_with_any_critic(self, two):
        p, params, data, _, gradient = two
        table = jax.random.normal(jax.random.key(3), (p.length, 5))
        values = table[jnp.arange(p.length)[None, None], data[0]]
        make = lambda r, v: advantages(  # noqa: E731
            ESTIMATORS["coala"], r, v, inner_length=2, discount=1.0, gae_lambda=1.0
        )
        advantage = jax.vmap(make)(data[2], values)
        found = flat(estimator_mean(p, params, data, advantage))
        np.testing.assert_allclose(found, gradient, atol=TOLERANCE)

    def test_batch_unaware_flips_signs(self, two):
        p, params, data, _, gradient = two
        found = mean_of("batch_unaware", p, params, data)
        np.testing.assert_allclose(found[:5], self.UNAWARE, atol=1e-8)
        assert list(np.sign(found[[1, 3]])) == [-1, -1]
        assert list(np.sign(gradient[[1, 3]])) == [1, 1]
        np.testing.assert_allclose(found[5:], gradient[5:], atol=TOLERANCE)  # nothing lies beyond
        error = np.linalg.norm(found - gradient) / np.linalg.norm(gradient)
        assert error == pytest.approx(0.156, abs=5e-4)

    def test_m_fos_is_batch_unaware_without_cross_episode_memory(self, two):
        p, params, data, _, _ = two
        mean = mean_of("m_fos", p, params, data)
        # The sum form is B times as long, so the spec's factor of 2 is a factor of 1 here.
        np.testing.assert_allclose(mean, mean_of("batch_unaware", p, params, data), atol=TOLERANCE)

    def test_bias_is_what_the_decomposition_predicts(self, two):
        p, params, data, _, gradient = two
        d, c_own, c_x = pieces(p, params, data)
        np.testing.assert_allclose(d + c_own + c_x, gradient, atol=TOLERANCE)
        np.testing.assert_allclose(c_own, c_x, atol=TOLERANCE)  # no memory across episodes
        np.testing.assert_allclose(d + c_own, mean_of("batch_unaware", p, params, data), atol=1e-12)

    @pytest.mark.parametrize(
        ("name", "variance"),
        # M-FOS is 7.470 as a sum over the two chains; ours is the mean.
        [("coala", 3.572), ("full", 6.045), ("batch_unaware", 2.106), ("m_fos", 7.470 / 4)],
    )
    def test_variance(self, two, name, variance):
        p, params, data, _, _ = two
        found = estimator_variance(p, params, data, weights(name, p, data))
        assert found == pytest.approx(variance, abs=1e-3)


def test_automatic_gradient_is_that_of_finite_differences():
    """The reference that the estimators are held against, without automatic differentiation."""
    p = problem(batch=1)
    start = jax.random.normal(jax.random.key(0), (10,))
    data = p.everything(co_params(jax.random.key(1)))
    value = jax.jit(lambda x: exact(p, {"logits": x.reshape(2, 5, 1)}, data)[0])
    h = 1e-5
    slopes = [float(value(start + h * e) - value(start - h * e)) / (2 * h) for e in np.eye(10)]
    gradient = flat(exact(p, {"logits": start.reshape(2, 5, 1)}, data)[1])
    assert np.max(np.abs(gradient)) > 0.1
    np.testing.assert_allclose(gradient, slopes, atol=1e-8)


def test_one_chain():
    p, params = problem(batch=1), {"logits": jnp.zeros((2, 5, 1))}
    data = p.everything(co_params())
    value, gradient = exact(p, params, data)
    assert float(value) == pytest.approx(1.74460020, abs=1e-8)
    expected = [-0.23067531, -0.02246835, -0.06360481, 0.00812210, -0.14311759]
    expected += [-0.25969800, -0.05106490, -0.07393510, -0.05106490, -0.07393510]
    np.testing.assert_allclose(flat(gradient), expected, atol=1e-8)
    for name in ("coala", "batch_unaware", "m_fos", "full"):
        np.testing.assert_array_equal(weights(name, p, data), weights("coala", p, data))
        np.testing.assert_allclose(mean_of(name, p, params, data), flat(gradient), atol=TOLERANCE)


@pytest.mark.parametrize(("seed", "batch"), [(0, 2), (1, 2), (2, 3)])
def test_random_problems(seed, batch):
    """Random egos and naive starts, inner episodes of one step: COALA exact, the others not."""
    ego = remembering_ego(1)
    p = problem(batch=batch, inner_length=1, ego=ego)
    keys = jax.random.split(jax.random.key(seed))
    params = {"logits": jax.random.normal(keys[0], (5, 5))}
    data = p.everything(co_params(keys[1]))
    gradient = flat(exact(p, params, data)[1])
    for name in ("coala", "full"):
        np.testing.assert_allclose(mean_of(name, p, params, data), gradient, atol=TOLERANCE)
    for name in ("batch_unaware", "m_fos", "myopic"):
        assert np.max(np.abs(mean_of(name, p, params, data) - gradient)) > 1e-5


@pytest.mark.parametrize(("inner_length", "batch"), [(2, 2), (1, 3)])
def test_with_memory_every_estimator_is_what_the_decomposition_predicts(inner_length, batch):
    """The baselines then differ, but their errors are still known, M-FOS's too."""
    p = problem(batch=batch, inner_length=inner_length, ego=remembering_ego(inner_length))
    keys = jax.random.split(jax.random.key(1))
    params = {"logits": jax.random.normal(keys[0], (5, 5))}
    data = p.everything(co_params())
    d, c_own, c_x = pieces(p, params, data)
    predicted = {
        "coala": d + c_own + (batch - 1) * c_x,
        "batch_unaware": d + c_own,
        "m_fos": d + (c_own + (batch - 1) * c_x) / batch,
        "myopic": d,
    }
    found = means(p, params, data, [weights(name, p, data) for name in predicted])
    np.testing.assert_allclose(found, list(predicted.values()), atol=TOLERANCE)
    gradient = flat(exact(p, params, data)[1])
    np.testing.assert_allclose(predicted["coala"], gradient, atol=TOLERANCE)
    difference = np.linalg.norm(predicted["m_fos"] - predicted["batch_unaware"])
    # After inner episodes of one step there is only the start to remember.
    assert (difference > 1e-3 * np.linalg.norm(gradient)) == (inner_length > 1)


def test_one_inner_episode_is_ordinary_policy_gradient():
    p = problem(batch=2, inner_episodes=1)
    params = {"logits": jax.random.normal(jax.random.key(0), (1, 5, 1))}
    data = p.everything(co_params())
    gradient = flat(exact(p, params, data)[1])
    for name in ("coala", "batch_unaware", "m_fos", "myopic"):
        np.testing.assert_allclose(
            weights(name, p, data), weights("coala", p, data), rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(mean_of(name, p, params, data), gradient, atol=TOLERANCE)


def test_nothing_to_shape_in_a_frozen_co_player():
    """η = 0: same mean; COALA pays for the other chains' noise."""
    p = problem(batch=2, step_size=0.0, ego=remembering_ego(2))
    params = {"logits": jax.random.normal(jax.random.key(0), (5, 5))}
    data = p.everything(co_params())
    gradient = flat(exact(p, params, data)[1])
    for name in ("coala", "batch_unaware"):
        np.testing.assert_allclose(mean_of(name, p, params, data), gradient, atol=TOLERANCE)
    noise = [
        estimator_variance(p, params, data, weights(n, p, data)) for n in ("coala", "batch_unaware")
    ]
    assert noise[0] > noise[1]


def test_nothing_to_shape_in_a_co_player_that_ignores_what_it_sees():
    """It changes after every inner episode, but not by what it was paid: other chains' futures say nothing."""
    drifting = naive.NaiveLearner(
        tabular(5, 2),
        lambda params: naive.LearnerState(params, ()),
        lambda state, _: replace(state, params=jax.tree.map(lambda x: x + 0.7, state.params)),
    )
    p = replace(problem(batch=2, ego=remembering_ego(2)), learner=drifting)
    params = {"logits": jax.random.normal(jax.random.key(0), (5, 5))}
    data = p.everything(co_params())
    parts = jax.vmap(lambda r: split_weights(ESTIMATORS["batch_unaware"], r, 2))(data[2])
    own, cross = parts[1], jnp.flip(parts[1], axis=1)
    np.testing.assert_allclose(flat(estimator_mean(p, params, data, cross)), 0.0, atol=TOLERANCE)
    # Not because later episodes said nothing at all: the ego remembers its own chain.
    assert np.max(np.abs(flat(estimator_mean(p, params, data, own)))) > 1e-3
    gradient = flat(exact(p, params, data)[1])
    np.testing.assert_allclose(mean_of("coala", p, params, data), gradient, atol=TOLERANCE)


def test_merging_two_co_players_into_one_batch_only_adds_noise():
    """The cross-batch mean must run over chains of one co-player: others' futures have mean zero, but not variance 0."""
    p = problem(batch=1, inner_length=1)
    params = {"logits": jax.random.normal(jax.random.key(0), (2, 5, 1))}
    data = p.everything(co_params(jax.random.key(1)))
    obs, action, reward, co = data
    n = reward.shape[0]
    left, right = (x.reshape(-1) for x in jnp.meshgrid(jnp.arange(n), jnp.arange(n), indexing="ij"))
    pair = lambda x: jnp.concatenate([x[left], x[right]], axis=1)  # noqa: E731
    two = replace(p, batch=2)
    together = (pair(obs), pair(action), pair(reward), co[left] + co[right])
    apart = 0.5 * pair(weights("coala", p, data))
    merged = weights("coala", two, together)
    assert np.max(np.abs(merged - apart)) > 0.1
    noise = [estimator_variance(two, params, together, w) for w in (apart, merged)]
    assert noise[1] > 1.2 * noise[0]
    gradient = flat(exact(p, params, data)[1])
    found = flat(estimator_mean(two, params, together, apart))
    np.testing.assert_allclose(found, gradient, atol=TOLERANCE)


def test_permuting_chains_changes_nothing():
    reward = jax.random.normal(jax.random.key(0), (4, 6))
    order = jnp.array([2, 0, 3, 1])
    for name in ESTIMATORS:
        straight = score_weights(ESTIMATORS[name], reward, 3)
        permuted = score_weights(ESTIMATORS[name], reward[order], 3)
        np.testing.assert_allclose(straight[order], permuted, atol=1e-12)


def test_constant_rewards_give_no_gradient():
    game = IteratedMatrixGame((((1.0, 1.0), (1.0, 1.0)), ((1.0, 1.0), (1.0, 1.0))), 1)
    p = replace(problem(batch=2, inner_length=1), game=game)
    params = {"logits": jax.random.normal(jax.random.key(0), (2, 5, 1))}
    data = p.everything(co_params())
    np.testing.assert_allclose(flat(exact(p, params, data)[1]), 0.0, atol=TOLERANCE)
    np.testing.assert_allclose(mean_of("coala", p, params, data), 0.0, atol=TOLERANCE)
