"""From estimator to gradient step: `prepare` and `loss` fed with every joint action sequence, float64, no sampling."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive
from agents.learning_aware.estimators import ESTIMATORS
from agents.learning_aware.objectives import ObjectiveSettings, loss, prepare
from agents.learning_aware.policies import tabular, tabular_by_episode
from agents.learning_aware.shaping import MetaEpisode
from envs.social.matrix import IteratedMatrixGame
from tests.agents.learning_aware.enumeration import Problem, ego_log_probs, exact

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
        chains = prepare(p.ego, params, episodes_of(data, pick), estimator, cfg, inner)
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
