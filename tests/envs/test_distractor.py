"""Distractor rewards of the gridworld: what pays, how often, and that nothing else changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.layout import Layout

PLAIN = GridPinpad(grid_size=3, num_objects=1, num_walls=0)
PAYS = GridPinpad(grid_size=3, num_objects=1, num_walls=0, distractor_reward=0.25)
# The colour is in the corner below right of the agent: two moves away.
START = Layout(objects=jnp.array([8], jnp.int32), walls=jnp.zeros(0, jnp.int32), agent=jnp.int32(4))


def play(env, actions, seeds=512):
    """Rewards and last states of the same moves under many keys, [seeds, T]."""

    def one(key):
        _, state = env.reset_to(START, jnp.int32(0), env.default_params)

        def step(state, x):
            _, state, reward, done, _ = env.step_env(x[0], state, x[1], env.default_params)
            return state, (reward, done)

        keys = jax.random.split(key, len(actions))
        state, (reward, done) = jax.lax.scan(step, state, (keys, jnp.asarray(actions, jnp.int32)))
        return state, reward, done

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))


def test_early_moves_up_pay_half_the_time():
    steps = 5
    _, reward, _ = play(dataclasses.replace(PAYS, distractor_steps=steps), [0] * (steps + 3))
    assert set(np.unique(reward)) == {0.0, 0.25}
    rate = (np.asarray(reward) > 0).mean(0)
    assert np.abs(rate[:steps] - 0.5).max() < 5 * 0.5 / np.sqrt(512)
    assert (rate[steps:] == 0).all()


def test_nothing_else_changes():
    actions = [0, 2, 1, 3, 1, 3]  # up, left, down, right, down, right: solved at the last move
    plain_state, plain, plain_done = play(PLAIN, actions)
    state, reward, done = play(PAYS, actions)
    jax.tree.map(np.testing.assert_array_equal, state, plain_state)
    np.testing.assert_array_equal(done, plain_done)
    assert (np.asarray(plain)[:, -1] == 1).all()
    np.testing.assert_array_equal(np.asarray(reward)[:, 1:], np.asarray(plain)[:, 1:])
    assert set(np.unique(reward)) <= {0.0, *PAYS.reward_kinds}


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_distractors_are_smaller_than_the_task(value):
    with pytest.raises(ValueError, match=f"distractor_reward={value}"):
        GridPinpad(distractor_reward=value)
