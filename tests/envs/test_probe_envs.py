"""The probe environments pay what their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import adapter
from tests import probe_envs as probes

reset = jax.jit(adapter.reset, static_argnums=0)
step = jax.jit(adapter.step, static_argnums=0)


def play(env, actions, seed=0):
    """Observations before each action, rewards, ends and infos of one episode."""
    params = env.default_params
    state, out = reset(env, jax.random.key(seed), params)
    seen, steps = [], []
    for action in actions:
        seen.append(np.asarray(out.obs))
        state, out = step(env, jax.random.key(0), state, jnp.int32(action), params)
        steps.append(out)
    rewards = np.array([float(out.reward) for out in steps])
    return np.array(seen), rewards, steps, np.asarray(state.cues)


@pytest.mark.parametrize("env", probes.PROBES, ids=lambda env: env.name)
def test_episodes_end_on_time(env):
    seen, _, steps, _ = play(env, [0] * env.length)
    flags = [(bool(out.terminated), bool(out.truncated)) for out in steps]
    ending = (False, True) if env.endless else (True, False)
    assert flags == [(False, False)] * (env.length - 1) + [ending]
    assert seen.shape[1:] == env.observation_space().shape


def test_values_of_the_five_classic_probes():
    assert play(probes.CONSTANT_REWARD, [0])[1] == [1]
    _, rewards, _, _ = play(probes.DISCOUNTED_REWARD, [0, 0])
    np.testing.assert_array_equal(rewards, [0, 1])
    for action in (0, 1):
        assert play(probes.CHOSEN_REWARD, [action])[1] == [2 * action - 1]
    both = set()
    for seed in range(8):
        seen, rewards, _, cues = play(probes.OBSERVED_REWARD, [0], seed)
        assert rewards == seen[:, 0]
        both.add(float(rewards[0]))
        assert play(probes.MATCHED_REWARD, cues, seed)[1] == [1]
        assert play(probes.MATCHED_REWARD, 1 - cues, seed)[1] == [-1]
    assert both == {-1, 1}


def test_held_cue_is_seen_at_segment_starts_only():
    env = probes.HELD_CUE
    cues = play(env, [0])[3]
    actions = np.repeat(cues, env.segment_length)
    seen, rewards, steps, _ = play(env, actions)
    starts = np.arange(env.length) % env.segment_length == 0
    np.testing.assert_array_equal(seen.sum(axis=1), starts)
    np.testing.assert_array_equal(seen[starts].argmax(axis=1), cues)
    np.testing.assert_array_equal(rewards, np.ones(env.length))
    # The info speaks of the observation it comes with, so it is one step ahead.
    assert [bool(out.info["segment_start"]) for out in steps] == [*starts[1:], True]
    assert play(env, np.roll(actions, 1))[1].min() == -1


def test_sparse_plan_pays_one_plan_only():
    env = probes.SPARSE_PLAN
    plan = np.repeat([0, 1, 0], env.segment_length)
    np.testing.assert_array_equal(play(env, plan)[1], [0] * 11 + [1])
    for wrong in range(env.length):
        other = plan.copy()
        other[wrong] = 1 - other[wrong]
        assert not play(env, other)[1].any()
