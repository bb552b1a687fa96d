"""The expert: shortest, uniform over ties, never ends an episode by noise; labels are right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from envs.pinpad import expert
from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import TABLE_A1, TABLE_A2, encode_tasks
from tests.envs import oracle

SMALL = (GridPinpad(4, 4, 1), ("032", "103", "00", "2112"), 24)
PAPER = (GridPinpad(7, 8, 4), TABLE_A1, 100)
N = 128


@partial(jax.jit, static_argnames=("env", "n", "horizon", "tie_breaking"))
def generate(key, env, tasks, n, horizon, epsilon=0.0, tie_breaking="uniform"):
    return expert.generate(key, env, tasks, n, horizon, epsilon, tie_breaking)


plan_of = jax.jit(expert.plan, static_argnames="grid_size")
action_probs = jax.jit(expert.action_probs, static_argnames="tie_breaking")


def run(setting, seed=0, n=N, **options):
    env, tasks, horizon = setting
    encoded = encode_tasks(tasks, env.num_objects)
    result = generate(jax.random.key(seed), env, encoded, n, horizon, **options)
    return jax.device_get(result)  # indexing NumPy arrays is far faster


@partial(jax.jit, static_argnames=("env", "horizon"))
def replay(env, tasks, trajectories, horizon):
    """The stored actions in the environment: agent, progress, reward, terminated, wrong [n, H]."""
    params = PinpadParams(tasks, max_steps_in_episode=horizon)
    start = Layout(trajectories.objects, trajectories.walls, trajectories.agent[:, 0])
    _, state = env.reset_to(start, trajectories.task, params)

    def step(state, action):
        key = jax.random.key(0)
        batched = jax.vmap(env.step_env, (None, 0, 0, None))
        _, state, reward, terminated, info = batched(key, state, action, params)
        return state, (state.agent, info["progress"], reward, terminated, info["wrong"])

    return jax.tree.map(jnp.transpose, jax.lax.scan(step, state, trajectories.action.T)[1])


@pytest.mark.parametrize("setting", [SMALL, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_trajectories_replay_in_the_environment(setting, epsilon):
    env, tasks, horizon = setting
    encoded = encode_tasks(tasks, env.num_objects)
    trajectories, stats = run(setting, epsilon=epsilon)
    replayed = jax.device_get(replay(env, encoded, trajectories, horizon))
    agent, progress, reward, terminated, wrong = replayed
    t = np.arange(horizon)
    length = trajectories.length[:, None]
    taken, before_last = t < length, t < length - 1

    np.testing.assert_array_equal(np.where(taken, trajectories.agent[:, 1:], agent), agent)
    assert not (terminated & before_last).any()
    assert not (wrong & taken).any()  # noise never ends an episode
    solved = (reward * taken).sum(axis=1)
    assert stats["success"] == solved.mean()
    if epsilon == 0:
        assert solved.all()
    assert (length[solved == 0] == horizon).all()

    # Labels: progress before each action, and the colour it points to.
    earlier = np.concatenate([np.zeros((N, 1)), progress[:, :-1]], axis=1)
    np.testing.assert_array_equal(trajectories.subgoal, np.where(taken, earlier, 0))
    sequences = np.asarray(encoded.sequences)[trajectories.task]
    goals = np.take_along_axis(sequences, trajectories.subgoal, axis=1)
    np.testing.assert_array_equal(trajectories.goal, np.where(taken, goals, 0))
    # Padding: actions 0, the last cell repeated.
    assert (trajectories.action[~taken] == 0).all()
    last = np.take_along_axis(trajectories.agent, length, axis=1)
    after_end = np.arange(horizon + 1) > length
    assert (np.where(after_end, trajectories.agent, last) == last).all()


def test_lengths_are_shortest():
    env, tasks, horizon = SMALL
    trajectories, stats = run(SMALL)
    for i in range(N):
        objects, walls = trajectories.objects[i].tolist(), trajectories.walls[i].tolist()
        start, task = int(trajectories.agent[i, 0]), tasks[int(trajectories.task[i])]
        shortest = oracle.solution_length(task, env.grid_size, objects, walls, start)
        assert trajectories.length[i] == shortest <= horizon
    np.testing.assert_allclose(stats["mean_length"], trajectories.length.mean(), rtol=1e-6)


def test_tasks_are_uniform_and_the_same_key_gives_the_same_data():
    first, _ = run(SMALL, n=4000)
    again, _ = run(SMALL, n=4000)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert chisquare(np.bincount(first.task, minlength=4)).pvalue > 1e-3


def test_action_probs_match_the_oracle():
    env, tasks, _ = SMALL
    trajectories, _ = run(SMALL)
    last = np.array([len(task) for task in tasks])[trajectories.task] - 1
    layout = Layout(trajectories.objects, trajectories.walls, trajectories.agent[:, 0])
    plan = plan_of(layout, env.grid_size)
    for t in (0, 3):
        agent, goal = trajectories.agent[:, t], trajectories.goal[:, t]
        final = trajectories.subgoal[:, t] == last
        uniform = action_probs(plan, agent, goal, final)
        lowest = action_probs(plan, agent, goal, final, tie_breaking="deterministic")
        noisy = action_probs(plan, agent, goal, final, epsilon=0.3)
        uniform, lowest, noisy = jax.device_get((uniform, lowest, noisy))
        for i in np.flatnonzero(t < trajectories.length):
            cell, colour = int(agent[i]), int(goal[i])
            objects, walls = trajectories.objects[i].tolist(), trajectories.walls[i].tolist()
            best = oracle.optimal_actions(cell, colour, env.grid_size, objects, walls)
            after = [oracle.destination(cell, a, env.grid_size, walls) for a in range(4)]
            ends = set(objects) - ({objects[colour]} if not final[i] else set()) - {cell}
            lasting = [a for a in range(4) if after[a] not in ends] or best
            np.testing.assert_allclose(uniform[i], spread(best), rtol=1e-6)
            np.testing.assert_array_equal(lowest[i], spread([min(best)]))
            mixture = 0.7 * spread(best) + 0.3 * spread(lasting)
            np.testing.assert_allclose(noisy[i], mixture, rtol=1e-5)


def spread(actions: list[int]) -> np.ndarray:
    return np.bincount(actions, minlength=4).astype(np.float32) / len(actions)


def test_generated_actions_follow_action_probs():
    """Summed over steps: the sampled actions and their probabilities, with noise and ties."""
    env, tasks, _ = SMALL
    trajectories, _ = run(SMALL, n=4000, epsilon=0.3)
    layout = Layout(trajectories.objects, trajectories.walls, trajectories.agent[:, 0])
    last = np.array([len(task) for task in tasks])[trajectories.task] - 1
    probs = action_probs(
        plan_of(layout, env.grid_size),
        trajectories.agent[:, 1],
        trajectories.goal[:, 1],
        trajectories.subgoal[:, 1] == last,
        epsilon=0.3,
    )
    alive = trajectories.length > 1
    probs, action = np.asarray(probs, float)[alive], trajectories.action[alive, 1]
    for a in range(4):
        counts, expected = (action == a).sum(), probs[:, a].sum()
        deviation = np.sqrt((probs[:, a] * (1 - probs[:, a])).sum())
        assert abs(counts - expected) < 4 * deviation
    assert (probs[np.arange(len(action)), action] > 0).all()


def test_deterministic_tie_breaking_takes_the_lowest_action():
    env, _, _ = SMALL
    trajectories, _ = run(SMALL, tie_breaking="deterministic")
    for i in range(0, N, 8):
        objects, walls = trajectories.objects[i].tolist(), trajectories.walls[i].tolist()
        for t in range(int(trajectories.length[i])):
            cell, goal = int(trajectories.agent[i, t]), int(trajectories.goal[i, t])
            best = oracle.optimal_actions(cell, goal, env.grid_size, objects, walls)
            assert trajectories.action[i, t] == min(best)


def test_a_pocket_between_wrong_colours_ends_the_trajectory():
    """The one place where nothing but a wrong colour is left; noise may walk into it.

    P is the pocket, 4 the next colour, which cannot be reached from it:
        .  0  .
        3  P  1
        .  2  4
    """
    layout = Layout(jnp.array([1, 5, 7, 3, 8]), jnp.zeros(0, jnp.int32), jnp.array(4))
    plan = plan_of(layout, 3)
    probs = action_probs(plan, jnp.array(4), jnp.array(4), jnp.array(True), epsilon=0.5)
    np.testing.assert_allclose(probs, [0.25] * 4)
    batched, known = jax.tree.map(lambda x: x[None], (layout, plan))
    tasks, task = encode_tasks(("4",), 5), jnp.zeros(1, jnp.int32)
    trajectories, success = expert._rollout(
        jnp.full((6, 2, 1), 0.9), tasks, task, batched, known, 3, jnp.float32(0), "uniform"
    )
    assert trajectories.length == 1
    assert not success


def test_expert_entropy_of_the_feasibility_setting():
    """Spec section 8: 5×5, 4 objects, 2 walls, Table A2: 0.169 nats per step, 10.75 steps."""
    env, tasks = GridPinpad(5, 4, 2), encode_tasks(TABLE_A2, 4)

    @jax.jit
    def entropy(key):
        trajectories, stats = expert.generate(key, env, tasks, 4000, 60)
        layout = Layout(trajectories.objects, trajectories.walls, trajectories.agent[:, 0])
        last = trajectories.subgoal == (tasks.lengths[trajectories.task] - 1)[:, None]
        probs = jax.vmap(partial(expert.action_probs, expert.plan(layout, 5)), 1, 1)(
            trajectories.agent[:, :-1], trajectories.goal, last
        )
        nats = -jnp.sum(jax.scipy.special.xlogy(probs, probs), axis=-1)
        taken = jnp.arange(60)[None] < trajectories.length[:, None]
        return jnp.mean(nats, where=taken), stats["mean_length"]

    nats, length = entropy(jax.random.key(0))
    np.testing.assert_allclose(nats, 0.169, atol=0.004)
    np.testing.assert_allclose(length, 10.75, atol=0.15)


def test_a_grid_without_walls():
    """Every layout has its solution; an empty array of walls once crashed the planning."""
    env, tasks, horizon = setting = (GridPinpad(3, 2, 0), ("01", "101"), 16)
    trajectories, stats = run(setting)
    assert trajectories.walls.shape == (N, 0)
    assert stats["success"] == 1
    reward = replay(env, encode_tasks(tasks, 2), trajectories, horizon)[2]
    np.testing.assert_array_equal(
        jnp.argmax(reward, axis=1) + 1, jax.device_get(trajectories.length)
    )
    for b in range(0, N, 16):
        cells = trajectories.objects[b].tolist(), [], int(trajectories.agent[b, 0])
        length = oracle.solution_length(tasks[trajectories.task[b]], 3, *cells)
        assert trajectories.length[b] == length


def test_solvable_fraction_counts_all_proposals():
    """Rejection must report the fraction of plain uniform layouts, which the oracle estimates."""
    env, task, horizon = GridPinpad(4, 4, 4), "0123", 14
    rng = np.random.default_rng(0)
    samples = [oracle.random_layout(rng, 4, 4, 4) for _ in range(800)]
    solvable = sum(oracle.solution_length(task, 4, *sample) <= horizon for sample in samples)
    tasks = encode_tasks((task,), 4)
    ids = jnp.zeros(4000, jnp.int32)
    sample = jax.jit(lambda key: expert.sample_solvable(key, 4000, env, tasks, ids, horizon))
    layout, fraction = sample(jax.random.key(0))
    assert 0.2 < fraction < 0.8
    assert binomtest(solvable, 800, float(fraction)).pvalue > 1e-3
    lengths = jax.jit(expert.task_length)(plan_of(layout, 4).distances, layout, tasks, ids)
    assert (lengths <= horizon).all()


def test_accepted_layouts_are_uniform_over_the_solvable_ones():
    env, tasks = GridPinpad(2, 1, 1), encode_tasks(("0",), 1)
    sample = jax.jit(
        lambda key: expert.sample_solvable(key, 9000, env, tasks, jnp.zeros(9000, jnp.int32), 1)
    )
    layout, fraction = jax.device_get(sample(jax.random.key(0)))
    found = np.stack([layout.objects[:, 0], layout.walls[:, 0], layout.agent], axis=1)
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 4 * 2 * 2  # the object beside the agent, the wall on either cell left
    assert chisquare(counts).pvalue > 1e-3
    np.testing.assert_allclose(fraction, 2 / 3, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 1.5}, r"epsilon=1\.5: allowed is \[0, 1\]"),
        ({"epsilon": -0.1}, r"epsilon=-0\.1"),
        ({"n": 0}, "n=0: allowed is 1 or more"),
        ({"horizon": 4}, "horizon=4: task 0120 takes at least 5 moves .* allowed is 5 or more"),
        ({"tie_breaking": "first"}, "tie_breaking='first': allowed are uniform, deterministic"),
    ],
)
def test_bad_settings_are_named_before_anything_compiles(change, message):
    options = {"n": 4, "horizon": 20, **change}
    with pytest.raises(ValueError, match=message):
        expert.generate(
            jax.random.key(0), GridPinpad(4, 4, 1), encode_tasks(("0120",), 4), **options
        )
