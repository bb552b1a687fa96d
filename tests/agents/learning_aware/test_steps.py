"""From estimator to gradient step: `prepare`, `centre` and `loss` on every joint action sequence, float64, unsampled."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive
from agents.learning_aware.estimators import ESTIMATORS, score_weights
from agents.learning_aware.objectives import ObjectiveSettings, centre, loss, prepare
from agents.learning_aware.policies import Policy, tabular, tabular_by_episode
from agents.learning_aware.shaping import MetaEpisode
from envs.social.matrix import IteratedMatrixGame
from tests.agents.learning_aware.enumeration import (
    Problem,
    ego_log_probs,
    estimator_mean,
    exact,
)

RULE = naive.PolicyGradientSettings(baseline="none", normalise=False, reduce_time="sum")
TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def problem(inner_length, ego):
    learner = naive.policy_gradient(tabular(5, 2), RULE)
    return Problem(IteratedMatrixGame(episode_length=inner_length), ego, learner, 2, 2)


def episodes_of(data, pick):
    obs, action, reward, _ = data
    return MetaEpisode(obs[pick], action[pick], reward[pick], reward[pick], {})


def mean_step(p, params, data, estimator, cfg, k=1):
    """E[gradient ascent's direction on the loss of K meta-episodes], per step of a chain as the estimators count it."""
    log_p = ego_log_probs(p, params, *data[:2]).sum((1, 2)) + data[3]
    axes = jnp.meshgrid(*[jnp.arange(log_p.size)] * k, indexing="ij")
    picks = jnp.stack(axes, -1).reshape(-1, k)  # every K-tuple of meta-episodes
    probability = jnp.exp(log_p[picks].sum(1))

    def one(moving, pick):
        inner = p.game.episode_length
        episodes = episodes_of(data, pick)
        chains = prepare(p.ego, params, episodes, estimator, cfg, inner)
        chains = centre(chains, episodes.reward.shape[1], cfg)
        return loss(moving, p.ego, chains, cfg)[0]

    @jax.jit
    def step(moving):
        return -jax.grad(lambda x: probability @ jax.vmap(one, (None, 0))(x, picks))(moving)[
            "logits"
        ]

    return p.length * np.ravel(step(params))


@pytest.fixture(scope="module")
def small():
    """T = 1: 256 sequences, so that all pairs of meta-episodes can be enumerated, too."""
    with jax.enable_x64(True):
        p = problem(1, tabular_by_episode(5, 2, 1, 2))
        keys = jax.random.split(jax.random.key(0))
        params = {"logits": jax.random.normal(keys[0], (2, 5, 1))}
        data = p.everything({"logits": jax.random.normal(keys[1], (5, 1))})
        return p, params, data, np.ravel(exact(p, params, data)[1]["logits"])


class TestCentring:
    """K = 2 meta-episodes of COALA-PG, all 65536 pairs."""

    CURRENT = replace(ESTIMATORS["coala"], use_future=False)

    def mean(self, small, centre, estimator=ESTIMATORS["coala"]):
        p, params, data, _ = small
        return mean_step(
            p, params, data, estimator, ObjectiveSettings("reinforce", centre=centre), 2
        )

    @pytest.mark.parametrize("centre", ["none", "leave_one_out"])
    def test_exact(self, small, centre):
        np.testing.assert_allclose(self.mean(small, centre), small[3], atol=TOLERANCE)

    def test_leave_one_out_is_exact_in_both_parts(self, small):
        current = self.mean(small, "none", self.CURRENT)
        found = self.mean(small, "leave_one_out", self.CURRENT)
        np.testing.assert_allclose(found, current, atol=TOLERANCE)

    def test_per_step_shortens_the_parts_by_what_they_share(self, small):
        current = self.mean(small, "none", self.CURRENT)
        later = small[3] - current
        assert np.linalg.norm(later) > 1e-3
        found = self.mean(small, "per_step", self.CURRENT)
        np.testing.assert_allclose(found, (1 - 1 / 4) * current, atol=TOLERANCE)  # 1/(K B)
        both = self.mean(small, "per_step")
        np.testing.assert_allclose(both - found, (1 - 1 / 2) * later, atol=TOLERANCE)  # 1/K


def with_critic(ego):
    """Beside the policy's logits a value for every step and observation."""

    def parallel(params, obs, reset):
        return ego.parallel(params, obs, reset)[0], params["values"][jnp.arange(obs.shape[1]), obs]

    return Policy(ego.init, ego.init_carry, ego.step, parallel)


@pytest.fixture(scope="module")
def fixture_f():
    """The spec's fixture F (T = 2, M = 2, B = 2, logits zero), with a random critic."""
    with jax.enable_x64(True):
        p = problem(2, with_critic(tabular_by_episode(5, 2, 2, 2)))
        values = jax.random.normal(jax.random.key(3), (p.length, 5))
        params = {"logits": jnp.zeros((2, 5, 1)), "values": values}
        data = p.everything({"logits": jnp.zeros((5, 1))})
        return p, params, data


@pytest.mark.parametrize("algorithm", ["reinforce", "a2c", "ppo"])
def test_coalas_first_step_is_the_exact_gradient(fixture_f, algorithm):
    p, params, data = fixture_f
    found = mean_step(p, params, data, ESTIMATORS["coala"], ObjectiveSettings(algorithm))
    np.testing.assert_allclose(found[:2], [-0.22741298, 0.00433832], atol=1e-8)  # the spec's
    np.testing.assert_allclose(found, np.ravel(exact(p, params, data)[1]["logits"]), atol=TOLERANCE)


@pytest.mark.parametrize(("name", "algorithm"), [("batch_unaware", "ppo"), ("m_fos", "a2c")])
def test_first_steps_of_the_baselines_are_their_own_means(fixture_f, algorithm, name):
    p, params, data = fixture_f
    weights = jax.vmap(lambda r: score_weights(ESTIMATORS[name], r, 2))(data[2])
    expected = estimator_mean(p, params, data, weights)["logits"]
    found = mean_step(p, params, data, ESTIMATORS[name], ObjectiveSettings(algorithm))
    np.testing.assert_allclose(found, np.ravel(expected), atol=TOLERANCE)


@pytest.mark.parametrize(("name", "algorithm"), [("coala", "reinforce"), ("m_fos", "a2c")])
def test_meta_episodes_do_not_see_each_other(fixture_f, algorithm, name):
    """Signals of K = 2 are those of each alone: B is the co-player's batch. COALA's *mean* is right even if merged."""
    p, params, data = fixture_f
    pick = jnp.array([12345, 54321])
    cfg = ObjectiveSettings(algorithm)
    ready = jax.jit(
        lambda i: prepare(p.ego, params, episodes_of(data, i), ESTIMATORS[name], cfg, 2)
    )
    both, alone = ready(pick), [ready(pick[i : i + 1]) for i in range(2)]
    for field in ("signal", "target", "old_log_prob"):
        apart = np.concatenate([getattr(x, field) for x in alone])
        np.testing.assert_allclose(getattr(both, field), apart, atol=1e-12)
    assert not np.allclose(alone[0].signal, alone[1].signal)
