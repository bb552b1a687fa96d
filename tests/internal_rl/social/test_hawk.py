import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware.shaping import against_naive
from configs import social as presets
from envs.social.cleanup import CleanUp
from envs.social.matrix import IteratedMatrixGame
from internal_rl.social.build import make_learner
from internal_rl.social.config import NaiveConfig, PolicyConfig
from internal_rl.social.hawk import hawk_policy

CFG = PolicyConfig(kind="hawk", width=8, mlp_width=8)


def trained_looking(params):
    """Read-outs start at zero, which would hide everything."""
    return jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )


def test_a_fresh_policy_is_uniform():
    game = CleanUp()
    policy = hawk_policy(CFG, game)
    _, obs = game.reset(jax.random.key(0))
    _, logits, values = policy.step(policy.init(jax.random.key(1)), obs, policy.init_carry(2))
    np.testing.assert_array_equal(logits, np.zeros((2, 6)))
    np.testing.assert_array_equal(values, np.zeros(2))


def test_acting_and_training_see_the_same_policy_over_inner_episodes():
    """The carry of T steps times M episodes gives the parallel form's numbers: the context is never reset."""
    game = IteratedMatrixGame(episode_length=3)
    policy = hawk_policy(CFG, game)
    params = trained_looking(policy.init(jax.random.key(0)))
    learner = make_learner(NaiveConfig(), game)
    start = learner.policy.init(jax.random.key(1))
    episode, _ = jax.jit(
        lambda key: against_naive(
            key, game, policy, params, learner, start, inner_episodes=2, batch=2
        )
    )(jax.random.key(2))
    logits, values = jax.jit(lambda o: policy.parallel(params, o, None))(episode.obs)
    carry = policy.init_carry(2)
    step = jax.jit(lambda o, c: policy.step(params, o, c))
    for t in range(6):
        carry, step_logits, step_values = step(episode.obs[:, t], carry)
        np.testing.assert_allclose(step_logits, logits[:, t], atol=1e-5)
        np.testing.assert_allclose(step_values, values[:, t], atol=1e-5)
    # The start symbol of the second inner episode finds another state than that of the first.
    assert float(jnp.abs(logits[:, 0] - logits[:, 3]).max()) > 1e-3


def test_paper_presets_have_the_papers_sizes():
    config = presets.get("ipd-mixed-paper", type(presets.PRESETS["ipd-mixed-paper"]))
    pool = config.pool
    assert (pool.meta_episodes, pool.batch, pool.inner_episodes) == (128, 16, 20)
    assert (pool.num_meta, pool.p_naive, pool.naive_starts) == (4, 0.75, 10)
    assert config.game.episode_length == 10
    assert pool.objective.reward_scale == 0.05


@pytest.mark.parametrize(("memory", "span"), [("inner_episode", 3), ("step", 1)])
def test_shorter_memories_forget(memory, span):
    game = IteratedMatrixGame(episode_length=3)
    policy = hawk_policy(dataclasses.replace(CFG, memory=memory), game)
    params = trained_looking(policy.init(jax.random.key(0)))
    obs = jnp.array([[0, 1, 2, 0, 3, 2], [0, 4, 4, 0, 3, 2]])
    logits, _ = policy.parallel(params, obs, None)
    carry, stepped = policy.init_carry(2), []
    for t in range(6):
        carry, step_logits, _ = policy.step(params, obs[:, t], carry)
        stepped.append(step_logits)
    np.testing.assert_allclose(jnp.stack(stepped, 1), logits, atol=1e-5)
    # The second inner episodes are the same, the first ones are not.
    np.testing.assert_allclose(logits[0, 3:], logits[1, 3:], atol=1e-6)
    same = np.allclose(logits[0, 2], logits[0, 5], atol=1e-4)
    assert same == (span == 1)
