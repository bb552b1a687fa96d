"""The adapter: flags, rewards and observations of gymnax environments as one `TimeStep`."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import adapter
from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import encode_tasks

KEY = jax.random.key(0)
ENV = GridPinpad(2, 2, 0)  # agent in cell 0, colour 0 to its right, colour 1 below
RIGHT, DOWN, LEFT, UP = 3, 1, 2, 0


def state_in(params):
    layout = Layout(jnp.array([1, 2]), jnp.zeros(0, jnp.int32), jnp.array(0))
    return ENV.reset_to(layout, jnp.int32(0), params)[1]


step = jax.jit(adapter.step, static_argnums=0)
auto_reset_step = jax.jit(adapter.auto_reset_step, static_argnums=0)


@pytest.mark.parametrize("step", [step, auto_reset_step])
@pytest.mark.parametrize(
    ("action", "limit", "reward", "terminated", "truncated"),
    [
        (UP, 5, 0, False, False),
        (RIGHT, 5, 1, True, False),  # solved
        (DOWN, 5, 0, True, False),  # wrong colour
        (UP, 1, 0, False, True),  # out of time
        (RIGHT, 1, 1, True, True),  # solved with the last step
    ],
)
def test_flags(step, action, limit, reward, terminated, truncated):
    params = PinpadParams(encode_tasks(("0",), 2), max_steps_in_episode=limit)
    _, out = step(ENV, KEY, state_in(params), action, params)
    assert (out.reward, out.terminated, out.truncated) == (reward, terminated, truncated)
    assert out.done == (terminated or truncated)
    assert out.info["success"] == bool(reward)
    assert (out.reward.dtype, out.terminated.dtype, out.truncated.dtype) == ("float32", bool, bool)


def test_final_obs_is_the_observation_before_the_reset():
    params = PinpadParams(encode_tasks(("0",), 2))
    state = state_in(params)
    ended, plain = step(ENV, KEY, state, RIGHT, params)
    assert ended.agent == 1
    np.testing.assert_array_equal(plain.obs, plain.final_obs)
    fresh, auto = auto_reset_step(ENV, KEY, state, RIGHT, params)
    np.testing.assert_array_equal(auto.final_obs, plain.obs)
    np.testing.assert_array_equal(auto.obs, ENV.get_obs(fresh))
    assert fresh.time == 0
    # Where the episode goes on, both are the same.
    _, going_on = auto_reset_step(ENV, KEY, state, UP, params)
    np.testing.assert_array_equal(going_on.obs, going_on.final_obs)


def test_reset_is_a_time_step_without_reward():
    state, out = adapter.reset(ENV, KEY, PinpadParams(encode_tasks(("0",), 2)))
    assert (out.reward, out.terminated, out.truncated, out.info) == (0, False, False, {})
    np.testing.assert_array_equal(out.obs, ENV.get_obs(state))
    np.testing.assert_array_equal(out.obs, out.final_obs)


def test_any_gymnax_environment_in_a_scan():
    env, params = gymnax.make("CartPole-v1")

    def step(state, key):
        action = env.action_space(params).sample(key)
        state, out = adapter.auto_reset_step(env, key, state, action, params)
        return state, out

    @jax.jit
    def rollout(keys):
        state, _ = jax.vmap(lambda key: adapter.reset(env, key, params))(keys)
        steps = jax.random.split(KEY, 100)
        batched = jax.vmap(step, (0, None))
        return jax.lax.scan(lambda s, k: batched(s, k), state, steps)[1]

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        out = rollout(jax.random.split(KEY, 4))
    assert out.obs.shape == out.final_obs.shape == (100, 4, 4)
    assert out.terminated.any()
    ended = np.asarray(out.done)
    same = (np.asarray(out.obs) == np.asarray(out.final_obs)).all(axis=-1)
    np.testing.assert_array_equal(same, ~ended)
