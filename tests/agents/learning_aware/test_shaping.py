"""The shaping POMDP of one ego: contexts, naive learners inside the program, tabular policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import naive
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.policies import Policy, sample, tabular, tabular_by_episode
from agents.learning_aware.shaping import against_meta, against_naive
from envs.social.matrix import MATCHING_PENNIES, IteratedMatrixGame, symmetric
from tests.agents.learning_aware.pools import GAME


def counting():
    """Cooperates on even steps of its own history, defects on odd ones; always surely."""

    def step(params, obs, carry):
        logits = jnp.where(carry % 2 == 0, 1.0, -1.0)
        both = jnp.stack([1e3 * logits, jnp.zeros(())])
        return carry + 1, jnp.broadcast_to(both[None], (obs.shape[0], 2)), jnp.zeros(obs.shape)

    return Policy(lambda key: {}, lambda batch: jnp.int32(0), step, lambda *_: None)


def test_contexts_reset_only_where_they_should():
    """The ego counts through the meta-episode, the naive learner starts again in every inner episode."""
    episode, _ = jax.jit(
        lambda key: against_naive(
            key, GAME, counting(), {}, naive.frozen(counting()), {}, inner_episodes=2, batch=2
        )
    )(jax.random.key(0))
    assert episode.action.tolist() == [[0, 1, 0, 1, 0, 1]] * 2
    # Observations hold the co-player's last action: C D C, then again C D C.
    co_actions = [(int(o) - 1) % 2 for o in episode.obs[0]]
    assert [co_actions[i] for i in (1, 2, 4, 5)] == [0, 1, 0, 1]
    assert episode.obs[0, 0] == episode.obs[0, 3] == 0
    meta = jax.jit(
        lambda key: against_meta(
            key, GAME, counting(), {}, counting(), {}, inner_episodes=2, batch=2
        )
    )(jax.random.key(0))
    assert meta.reward[0].tolist() == [1, 0, 1, 0, 1, 0]


def test_the_naive_learner_learns_inside_the_program():
    learner = naive.policy_gradient(tabular(5, 2), naive.PolicyGradientSettings())
    defector = {"logits": jnp.full((5, 1), -30.0)}
    episode, after = jax.jit(
        lambda key: against_naive(
            key,
            GAME,
            tabular(5, 2),
            defector,
            learner,
            {"logits": jnp.zeros((5, 1))},
            inner_episodes=12,
            batch=32,
        )
    )(jax.random.key(0))
    own = episode.co_reward.reshape(32, 12, 3).mean((0, 2))
    assert own[0] < -0.3
    assert own[-1] > -0.1
    assert (after["logits"][jnp.array([0, 2, 4])] < -1).all()
    np.testing.assert_array_equal(after["logits"][jnp.array([1, 3])], 0)  # states it never saw


def test_zero_sum_rewards_cancel():
    game = IteratedMatrixGame(MATCHING_PENNIES, 3)
    policy = tabular(5, 2, noise=1.0)
    params = policy.init(jax.random.key(0))
    episode = against_meta(
        jax.random.key(1), game, policy, params, policy, params, inner_episodes=2, batch=4
    )
    np.testing.assert_array_equal(episode.reward + episode.co_reward, 0)


def test_symmetric_play_of_a_zero_sum_game_averages_to_zero():
    """Two metas in either role: what one wins as ego it wins as co-player, so neither seat is worth anything."""
    # Rock, paper, scissors: of two actions, a symmetric zero-sum game pays the difference of what each would earn alone.
    game = IteratedMatrixGame(symmetric(((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))), 6)
    policy = tabular(10, 3, noise=2.0)
    metas = jax.vmap(policy.init)(jax.random.split(jax.random.key(0)))
    partners = jax.tree.map(lambda x: x[::-1], metas)

    @jax.jit
    def reward(key):
        play = lambda k, own, other: against_meta(  # noqa: E731
            k, game, policy, own, policy, other, inner_episodes=2, batch=4000
        )
        return jax.vmap(play)(jax.random.split(key), metas, partners).reward.mean((1, 2))

    # If the second player observed as the first does, the mean would be 0.17. The error of 48000 steps is 0.004.
    each = reward(jax.random.key(1))
    assert abs(float(each.mean())) < 0.02
    assert abs(float(each[0])) > 0.1


@pytest.mark.parametrize("epochs", [1, 3])
def test_actor_critic_learns_to_defect(epochs):
    policy = tabular(5, 2, value_scale=1.0)
    settings = naive.ActorCriticSettings(
        optimizer=Optimizer(learning_rate=0.1, grad_clip=1.0), epochs=epochs
    )
    learner = naive.actor_critic(policy, settings)
    params = policy.init(jax.random.key(0))
    episode, after = jax.jit(
        lambda key: against_naive(
            key, GAME, policy, params, learner, params, inner_episodes=15, batch=32
        )
    )(jax.random.key(0))
    own = episode.co_reward.reshape(32, 15, 3).mean((0, 2))
    assert own[-3:].mean() > own[:3].mean() + 0.15
    assert float(after["logits"][0, 0]) < -0.3


def test_policies_agree_with_themselves():
    """One step at a time and all at once: the same logits."""
    obs = jax.random.randint(jax.random.key(0), (4, 6), 0, 5)
    for policy in (
        tabular(5, 3, noise=1.0, value_scale=1.0),
        tabular_by_episode(5, 2, 3, 2, noise=1.0),
    ):
        params = policy.init(jax.random.key(1))
        logits, values = policy.parallel(params, obs, None)
        carry = policy.init_carry(4)
        for t in range(6):
            carry, step_logits, step_values = policy.step(params, obs[:, t], carry)
            np.testing.assert_allclose(step_logits, logits[:, t], atol=1e-6)
            np.testing.assert_allclose(step_values, values[:, t], atol=1e-6)


def test_sampling():
    uniform = jnp.linspace(0.0, 0.999, 1000)
    logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    actions = sample(uniform, jnp.broadcast_to(logits, (1000, 3)))
    np.testing.assert_allclose(np.bincount(actions) / 1000, [0.2, 0.5, 0.3], atol=2e-3)
    two = sample(uniform, jnp.broadcast_to(jnp.log(jnp.array([0.2, 0.8])), (1000, 2)))
    assert float((two == 0).mean()) == pytest.approx(0.2, abs=2e-3)
