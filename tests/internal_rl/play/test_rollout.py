"""Batched episodes against a slow environment over codes, and against parallel passes."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import adapter
from internal_rl import build
from internal_rl.play.controllers import (
    CodeSampler,
    abstract_controller,
    policy_sampler,
    prior_sampler,
    uncontrolled,
)
from internal_rl.play.internal_env import InternalEnv
from internal_rl.play.rollout import rollout
from internal_rl.stages.reinforce import internal_experience, internal_log_prob
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    base_params,
    bind_base,
    bind_meta,
    bind_policy,
    changed,
    meta_params,
    policy_params,
)

EPISODES = 16
# One colour per task: random behaviour succeeds, fails and runs out of time.
WORLD = build.heldout_world(SMOKE.env, ("0", "1", "2", "3"))
KEY = jax.random.key(4)


@cache
def starts():
    return jax.jit(lambda key: WORLD.starts(key, EPISODES))(jax.random.key(1))[0]


def networks(config=SMOKE):
    return base_params(config), meta_params(config), policy_params(config)


def play(config, params, start, key=KEY, threshold=0.5, sampler=None):
    base, meta, policy = params
    sampler = sampler or policy_sampler(bind_policy(policy, config))
    controller = abstract_controller(bind_meta(meta, config), sampler, threshold)
    return rollout(
        key, WORLD, bind_base(base, config), controller, start, keep=("e", "obs", "state")
    )


@cache
def recorded(config=SMOKE):
    """A batch of episodes under π(z | e)."""
    run = jax.jit(partial(play, config))
    return jax.device_get(run(networks(config), starts()))


@cache
def play_one():
    """One episode alone, compiled."""
    return jax.jit(partial(play, SMOKE))


def test_the_episodes_are_worth_comparing():
    episodes = recorded()
    length = episodes.alive.sum(1)
    assert 0 < episodes.success.sum() < EPISODES
    assert length.min() < length.max()
    switch = episodes.decision.switch[episodes.alive]
    assert 0.2 < switch.mean() < 0.95


def test_equals_the_internal_environment_step_by_step():
    """Algorithm 1: reset, then one code at a time; same key, same codes."""
    params = networks()

    @jax.jit
    def reset(params, start):
        base, meta, _ = params
        return InternalEnv(WORLD, bind_base(base), bind_meta(meta)).reset(start)

    @jax.jit
    def step(params, key, state, z):
        base, meta, _ = params
        return InternalEnv(WORLD, bind_base(base), bind_meta(meta)).step(key, state, z)

    abstract_steps, rewards = 0, 0.0
    for i in range(6):
        key = jax.random.fold_in(KEY, i)
        batch_of_one = jax.tree.map(lambda x, i=i: x[i : i + 1], starts())
        episode = jax.device_get(play_one()(params, batch_of_one, key))
        length = int(episode.alive[0].sum())
        switches = np.flatnonzero(episode.decision.switch[0, :length])
        assert switches[0] == 0
        state, e = reset(params, jax.tree.map(lambda x, i=i: x[i], starts()))
        for t, after in zip(switches, [*switches[1:], length], strict=True):
            assert int(state.t) == t
            assert not state.done
            assert int(state.env_state.agent) == episode.state.agent[0, t]
            assert_close(e, episode.e[0, t])
            state, e, reward, done = step(params, key, state, episode.decision.z[0, t])
            assert float(reward) == episode.reward[0, t:after].sum()
            assert bool(done) == (after == length)
            abstract_steps += 1
            rewards += float(reward)
        assert int(state.t) == length
        assert int(state.env_state.progress) == episode.progress[0]
    assert abstract_steps > 6
    assert rewards > 0


@pytest.mark.parametrize("mixer", ["transformer", "hawk"])
def test_uncontrolled_rollout_keeps_the_whole_context(mixer):
    """Cached step by step, the model says what it says about the whole sequence at once."""
    config = changed(SMOKE, model={"mixer": mixer})

    @jax.jit
    def both(params, start):
        base, (layout, _) = bind_base(params, config), start
        episodes = rollout(KEY, WORLD, base, uncontrolled(), start, keep=("state",))
        agent = episodes.state.agent
        obs = WORLD.env.observe(layout.objects[:, None], layout.walls[:, None], agent)
        first = jnp.zeros(episodes.alive.shape, bool).at[:, 0].set(True)
        parallel = base.action_distribution(base(obs, first)).log_prob(episodes.action)
        return episodes, parallel

    episodes, parallel = jax.device_get(both(base_params(config), starts()))
    assert_close(episodes.action_log_prob[episodes.alive], parallel[episodes.alive])
    assert episodes.alive.sum(1).max() > 4
    assert episodes.e is episodes.obs is None  # not asked for


def test_every_record_equals_a_parallel_pass():
    """Residual stream, gate and log-probabilities from whole sequences, given actions and codes."""
    episodes, (layout, _) = recorded(), starts()
    alive = episodes.alive

    @jax.jit
    def parallel(params):
        base, meta = bind_base(params[0]), bind_meta(params[1])
        agent = jnp.asarray(episodes.state.agent)
        obs = WORLD.env.observe(layout.objects[:, None], layout.walls[:, None], agent)
        _, e = base.lower(obs)
        z = jnp.asarray(episodes.decision.z)
        _, out = base.upper(meta.decoder.control(e, z))
        _, h = meta.history(e)
        shift = lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))  # noqa: E731
        gate = meta.switch_probability(e, shift(h), shift(z))
        log_prob = base.action_distribution(out).log_prob(jnp.asarray(episodes.action))
        return obs, e, gate, log_prob

    obs, e, gate, log_prob = jax.device_get(parallel(networks()))
    np.testing.assert_array_equal(episodes.obs[alive], obs[alive])
    assert_close(episodes.e[alive], e[alive], atol=1e-4)
    assert_close(episodes.action_log_prob[alive], log_prob[alive], atol=1e-4)
    later = alive.copy()
    later[:, 0] = False
    assert_close(episodes.decision.gate[later], gate[later], atol=1e-4)
    np.testing.assert_array_equal(episodes.decision.gate[:, 0], 1.0)
    np.testing.assert_array_equal(
        episodes.decision.switch[alive], episodes.decision.gate[alive] >= 0.5
    )


def test_rewards_and_ends_equal_a_replay_of_the_actions():
    episodes, (layout, task) = recorded(), starts()

    @jax.jit
    def replay(actions):
        def one(layout, task, actions):
            _, state = WORLD.env.reset_to(layout, task, WORLD.params)

            def step(state, action):
                before = state
                state, out = adapter.step(WORLD.env, KEY, state, action, WORLD.params)
                return state, (before.agent, out.reward, out.terminated | out.truncated, out.info)

            return jax.lax.scan(step, state, actions)[1]

        return jax.vmap(one)(layout, task, actions)

    agent, reward, done, info = jax.device_get(replay(jnp.asarray(episodes.action)))
    for i in range(EPISODES):
        length = int(np.argmax(done[i])) + 1
        assert episodes.alive[i].sum() == length
        assert episodes.alive[i, :length].all()
        np.testing.assert_array_equal(episodes.state.agent[i, :length], agent[i, :length])
        np.testing.assert_array_equal(episodes.reward[i, :length], reward[i, :length])
        assert episodes.success[i] == info["success"][i, length - 1]
        assert episodes.progress[i] == info["progress"][i, length - 1]
        assert episodes.final_state.progress[i] == episodes.progress[i]
        colours = [int(c) for c in WORLD.sequences[int(task[i])]]
        assert episodes.goal[i, 0] == colours[0]
    np.testing.assert_array_equal(episodes.episode_return, episodes.success.astype(np.float32))


def test_dead_episodes_record_nothing():
    episodes = recorded()
    dead = ~episodes.alive
    assert dead.any()
    assert not episodes.reward[dead].any()
    acted = internal_experience(jax.tree.map(jnp.asarray, episodes), 1e-3).acted
    assert not np.asarray(acted)[dead].any()


def test_loop_stops_when_all_episodes_have_ended():
    """Steps that were never played keep their zeros; played ones have log-probabilities < 0."""
    episodes, params = recorded(), networks()
    short = int(np.argmin(episodes.alive.sum(1)))
    start = jax.tree.map(lambda x: x[short : short + 1], starts())
    for seed in range(20):
        alone = play_one()(params, start, jax.random.key(seed))
        last = int(alone.alive.sum())
        if last < WORLD.horizon:
            break
    assert last < WORLD.horizon
    assert (np.asarray(alone.action_log_prob)[0, :last] < 0).all()
    assert not np.asarray(alone.action_log_prob)[0, last:].any()
    assert not np.asarray(alone.e)[0, last:].any()


def test_policy_acts_only_at_switches():
    """A sampler that counts its calls in its carry and writes the count into the code."""

    def sample(key, e, carry):
        del key
        z = jnp.stack([carry + 1.0, e[:, 0]], axis=1)
        return carry + 1.0, z, -carry - 1.0

    counter = CodeSampler(init=lambda batch: jnp.zeros((batch,)), sample=sample)
    run = jax.jit(partial(play, SMOKE, sampler=counter))
    episodes = jax.device_get(run(networks(), starts()))
    decision = episodes.decision
    quiet = 0
    for i in range(EPISODES):
        calls, z = 0, np.zeros(2)
        for t in range(int(episodes.alive[i].sum())):
            if decision.switch[i, t]:
                calls += 1
                z = np.array([calls, episodes.e[i, t, 0]])
                assert decision.log_prob[i, t] == -calls
            else:
                quiet += 1
                assert decision.log_prob[i, t] == 0
            assert_close(decision.z[i, t], z)
    assert quiet > 5


def test_log_probs_of_codes_are_found_again():
    """What the surrogate recomputes for the same parameters is what was recorded."""
    episodes = jax.tree.map(jnp.asarray, recorded())

    @jax.jit
    def again(policy):
        batch = internal_experience(episodes, 1e-3)
        log_prob, entropy = internal_log_prob(bind_policy(policy), batch)
        return batch, log_prob, entropy

    batch, log_prob, entropy = jax.device_get(again(policy_params()))
    assert batch.acted.sum() > EPISODES
    error = np.abs(log_prob - batch.log_prob)[batch.acted]
    assert error.max() < 1e-5
    assert np.isfinite(entropy).all()


def test_threshold_and_forced_switching():
    forced = changed(SMOKE, metacontroller={"forced_switching": True})
    sampler = prior_sampler(SMOKE.metacontroller.code_dim)
    everywhere = jax.jit(partial(play, forced, sampler=sampler))(networks(forced), starts())
    assert np.asarray(everywhere.decision.switch)[np.asarray(everywhere.alive)].all()
    never = jax.jit(partial(play, SMOKE, sampler=sampler, threshold=1.1))
    # No gate reaches 1.1, not even the first: then no code is ever drawn.
    none = never(networks(), starts())
    assert not np.asarray(none.decision.switch).any()
    # The prior's log-density is that of N(0, I).
    z = np.asarray(everywhere.decision.z)
    expected = -0.5 * (z**2).sum(-1) - z.shape[-1] * 0.5 * np.log(2 * np.pi)
    alive = np.asarray(everywhere.alive)
    assert_close(np.asarray(everywhere.decision.log_prob)[alive], expected[alive])


def test_greedy_takes_the_mean():
    start = starts()

    @jax.jit
    def run(params, key):
        sampler = policy_sampler(bind_policy(params[2]), greedy=True)
        return play(SMOKE, params, start, key, sampler=sampler)

    one = run(networks(), jax.random.key(0))
    other = run(networks(), jax.random.key(1))
    # At t = 0 nothing random has happened yet.
    np.testing.assert_array_equal(one.decision.z[:, 0], other.decision.z[:, 0])
    mean, _ = jax.jit(lambda p, e: bind_policy(p)(e, jnp.ones((EPISODES, 1), bool)))(
        policy_params(), one.e[:, :1]
    )
    assert_close(one.decision.z[:, 0], mean[:, 0])


def test_only_what_exists_can_be_recorded():
    with pytest.raises(ValueError, match=r"keep=\('e', 'agent'\): allowed are e, obs, state"):
        rollout(KEY, WORLD, bind_base(base_params()), uncontrolled(), starts(), keep=("e", "agent"))
