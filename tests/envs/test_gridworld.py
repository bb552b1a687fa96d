"""Dynamics and observations of gridworld-pinpad against a plain Python oracle."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.environment import Environment
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import encode_tasks
from tests.envs import oracle

ENVS = (
    (GridPinpad(4, 4, 1), ("032", "00", "1", "2112")),
    (GridPinpad(3, 3, 2, "onehot"), ("012", "11", "0")),
    (GridPinpad(5, 2, 0), ("01", "0011", "10")),
    (GridPinpad(3, 2, 1, "offsets"), ("101", "00")),
)
KINDS = ("egocentric", "offsets", "onehot")
HORIZON, STEPS = 12, 16


@partial(jax.jit, static_argnames="env")
def walk(env, params, layout, task, actions):
    """Outputs of every step, without resets."""

    def step(state, action):
        obs, state, reward, terminated, info = env.step_env(
            jax.random.key(0), state, action, params
        )
        return state, (obs, state, reward, terminated, env.is_truncated(state, params), info)

    obs, state = env.reset_to(layout, task, params)
    return obs, jax.lax.scan(step, state, actions)[1]


def careful_actions(rng, episode: oracle.Episode) -> list[int]:
    """Random, but mostly not onto a wrong colour, so that the walks get somewhere."""
    actions = []
    for _ in range(STEPS):
        order = rng.permutation(4).tolist()
        target = episode.objects[int(episode.task[min(episode.progress, len(episode.task) - 1)])]
        cells = [oracle.destination(episode.agent, a, episode.size, episode.walls) for a in order]
        good = [a for a, c in zip(order, cells, strict=True) if c not in episode.objects]
        best = [a for a, c in zip(order, cells, strict=True) if c == target]
        actions.append((best or good or order)[0] if rng.random() < 0.9 else order[0])
        if episode.step(actions[-1])[1]:
            break
    return actions


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from(range(len(ENVS))))
def test_random_walks_match_the_oracle(seed, which):
    env, tasks = ENVS[which]
    rng = np.random.default_rng(seed)
    objects, walls, agent = oracle.random_layout(rng, env.grid_size, env.num_objects, env.num_walls)
    task = int(rng.integers(len(tasks)))
    make = partial(
        oracle.Episode, env.grid_size, objects, walls, agent, tasks[task], horizon=HORIZON
    )
    actions = careful_actions(rng, make())
    padded = np.zeros(STEPS, np.int32)
    padded[: len(actions)] = actions

    params = PinpadParams(encode_tasks(tasks, env.num_objects), max_steps_in_episode=HORIZON)
    layout = Layout(*(jnp.array(x, jnp.int32) for x in (objects, walls, agent)))
    first, outputs = jax.device_get(walk(env, params, layout, jnp.int32(task), jnp.asarray(padded)))
    observe = partial(oracle.observe, env.observation, env.grid_size, objects, walls)
    np.testing.assert_array_equal(first, observe(agent))

    episode = make()
    for t, action in enumerate(actions):
        expected = episode.step(action)
        obs, state, reward, terminated, truncated, info = jax.tree.map(lambda x: x[t], outputs)  # noqa: B023
        assert (reward, terminated, truncated) == expected
        assert (state.agent, state.progress) == (episode.agent, episode.progress)
        assert info["progress"] == episode.progress
        assert info["success"] == (expected[0] == 1)
        assert info["wrong"] == (expected[1] and expected[0] == 0)
        np.testing.assert_array_equal(obs, observe(episode.agent))


def test_a_repeated_colour_must_be_left_and_entered_again():
    env = GridPinpad(2, 1, 0)
    params = PinpadParams(encode_tasks(("00",), 1))
    layout = Layout(jnp.array([1]), jnp.zeros(0, jnp.int32), jnp.array(0))
    # Right onto the colour, twice against the border (no move), left, right.
    actions = jnp.array([3, 3, 0, 2, 3])
    _, (_, state, reward, terminated, _, _) = walk(env, params, layout, jnp.int32(0), actions)
    np.testing.assert_array_equal(state.progress, [1, 1, 1, 1, 2])
    np.testing.assert_array_equal(reward, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(terminated, [False] * 4 + [True])


def test_returning_to_the_last_colour_is_wrong():
    env = GridPinpad(2, 2, 0)
    params = PinpadParams(encode_tasks(("01",), 2))
    layout = Layout(jnp.array([1, 2]), jnp.zeros(0, jnp.int32), jnp.array(0))
    _, (_, _, reward, terminated, _, info) = walk(
        env, params, layout, jnp.int32(0), jnp.array([3, 2, 3])
    )
    np.testing.assert_array_equal(terminated, [False, False, True])
    np.testing.assert_array_equal(info["wrong"], [False, False, True])
    np.testing.assert_array_equal(reward, [0, 0, 0])


def test_a_finished_episode_pays_no_second_reward():
    env = GridPinpad(2, 1, 0)
    params = PinpadParams(encode_tasks(("0",), 1))
    layout = Layout(jnp.array([1]), jnp.zeros(0, jnp.int32), jnp.array(0))
    _, (_, _, reward, terminated, _, _) = walk(
        env, params, layout, jnp.int32(0), jnp.array([3, 2, 3])
    )
    np.testing.assert_array_equal(reward, [1, 0, 0])
    assert terminated.all()


@pytest.mark.parametrize(("size", "objects", "walls"), [(7, 8, 4), (4, 4, 1)])
def test_observation_sizes(size, objects, walls):
    onehot = GridPinpad(size, objects, walls, "onehot")
    assert onehot.obs_dim == size**2 * (walls + objects + 1)  # paper, App. A
    egocentric = GridPinpad(size, objects, walls, "egocentric")
    offsets = GridPinpad(size, objects, walls, "offsets")
    assert offsets.obs_dim == 2 * (2 * size - 1) * (objects + walls)
    assert egocentric.obs_dim == offsets.obs_dim + 2 * size
    for env in (onehot, egocentric, offsets):
        obs, _ = env.reset(jax.random.key(0), env.default_params)
        assert obs.shape == env.observation_space().shape == (env.obs_dim,)
        assert obs.dtype == jnp.float32
        assert sum(env.factor_sizes) == env.obs_dim
        ends = np.cumsum(env.factor_sizes)[:-1]
        assert [part.sum() for part in np.split(np.asarray(obs), ends)] == [1] * (len(ends) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_observe_takes_any_leading_shape(kind):
    env = GridPinpad(4, 2, 1, kind)
    rng = np.random.default_rng(0)
    samples = [oracle.random_layout(rng, 4, 2, 1) for _ in range(6)]
    objects, walls, agent = (jnp.array(x, jnp.int32) for x in zip(*samples, strict=True))
    expected = [oracle.observe(kind, 4, *sample) for sample in samples]
    batched = env.observe(objects.reshape(2, 3, 2), walls.reshape(2, 3, 1), agent.reshape(2, 3))
    np.testing.assert_array_equal(batched.reshape(6, -1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_observe_broadcasts_a_layout_over_time(kind):
    env = GridPinpad(4, 2, 1, kind)
    rng = np.random.default_rng(1)
    objects, walls, _ = zip(*(oracle.random_layout(rng, 4, 2, 1) for _ in range(2)), strict=True)
    agent = rng.integers(0, 16, (2, 5))
    cells = (jnp.array(x, jnp.int32) for x in (objects, walls))
    found = env.observe(*(x[:, None] for x in cells), jnp.array(agent, jnp.int32))
    expected = [
        [oracle.observe(kind, 4, objects[b], walls[b], cell) for cell in agent[b]] for b in range(2)
    ]
    np.testing.assert_array_equal(found, expected)


def test_offsets_hide_where_the_grid_ends():
    """Everything moved by one column looks the same, unless the agent's own cell is seen."""
    for kind in KINDS:
        env = GridPinpad(4, 1, 1, kind)
        here, there = (
            env.observe(jnp.array([0 + i]), jnp.array([6 + i]), jnp.array(9 + i)) for i in (0, 1)
        )
        assert (here == there).all() == (kind == "offsets")


def test_step_is_the_base_class_step():
    """Our override only saves an observation."""
    env = GridPinpad(3, 2, 1)
    params = PinpadParams(encode_tasks(("01", "10"), 2), max_steps_in_episode=3)

    def both(key, state, action):
        ours = env.step(key, state, action, params)
        base = Environment.step.__wrapped__(env, key, state, action, params)
        return ours, base

    keys = jax.random.split(jax.random.key(0), 32)
    state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)[1]
    step = jax.jit(jax.vmap(both))
    ends = 0
    for t in range(6):
        key = jax.random.fold_in(jax.random.key(1), t)
        actions = jax.random.randint(key, (32,), 0, 4)
        ours, base = step(jax.random.split(key, 32), state, actions)
        jax.tree.map(np.testing.assert_array_equal, ours, base)
        state, ends = ours[1], ends + int((ours[3] | ours[4]).sum())
    assert ends > 32


def test_auto_reset_starts_a_fresh_episode():
    env = GridPinpad(3, 2, 1)
    params = PinpadParams(encode_tasks(("01",), 2), max_steps_in_episode=1)
    keys = jax.random.split(jax.random.key(0), 64)
    _, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    obs, fresh, _, _, truncated, info = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))(
        jax.random.split(jax.random.key(1), 64), state, jnp.zeros(64, jnp.int32), params
    )
    assert truncated.all()
    assert (fresh.time == 0).all()
    assert (fresh.progress == 0).all()
    assert (fresh.objects != state.objects).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(obs, env.observe(fresh.objects, fresh.walls, fresh.agent))
    assert (info["final_observation"] != obs).any(axis=1).mean() > 0.9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid_size": 1}, "grid_size=1: allowed is 2 to 32"),
        ({"grid_size": 33}, "grid_size=33"),
        ({"grid_size": 3, "num_walls": 1}, r"num_objects=8 \+ num_walls=1 \+ 1 agent = 10 cells"),
        ({"num_objects": 0}, "num_objects=0: allowed is 1 to 10"),
        ({"num_objects": 11}, "num_objects=11"),
        ({"num_walls": -1}, "num_walls=-1: allowed is 0 or more"),
        (
            {"observation": "pixels"},
            "observation='pixels': allowed are egocentric, offsets, onehot",
        ),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        GridPinpad(**fields)


def test_default_params_fit_the_environment():
    for objects, tasks in ((8, 16), (4, 16), (3, 1)):
        params = GridPinpad(7, objects, 4).default_params
        assert params.tasks.lengths.shape == (tasks,)
        assert params.max_steps_in_episode == 100


def test_environments_are_hashable_by_value():
    assert hash(GridPinpad(4, 4, 1)) == hash(GridPinpad(4, 4, 1))
    assert GridPinpad(4, 4, 1) == GridPinpad(4, 4, 1) != GridPinpad(4, 4, 1, "onehot")


def test_one_compilation_serves_every_task_set():
    env = GridPinpad(3, 3, 0)
    step = jax.jit(env.step_env)
    for tasks in (("012", "021"), ("222", "10")):
        params = PinpadParams(encode_tasks(tasks, 3))
        _, state = env.reset(jax.random.key(0), params)
        step(jax.random.key(0), state, jnp.int32(0), params)
    assert step._cache_size() == 1
