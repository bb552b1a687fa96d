"""The compiled worlds against their plain-Python models, and against facts derived by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import adapter
from envs.credit import (
    Interleaving,
    InterleavingParams,
    KeyToDoor,
    Outcome,
    Tree,
    enumerate_mdp,
    exact,
)
from envs.credit.mdp import reward_index

LAYOUTS = {
    6: "410230",
    8: "41020230",
    13: "4102022001230",
    23: "41020220012211112222230",
}
FIRST_100 = (
    "10202200122111122222102210100101010100211121121022"
    "01122022210111211101001121110222021212220222221122"
)
APPLES = {6: 2, 8: 3, 13: 6, 23: 16, 43: 27, 63: 44, 83: 59, 103: 77}


def walk(env, params, horizon, batch, seed=0):
    """Random actions: obs [B, T+1, D], actions, rewards, done [B, T], last info."""

    def one(key):
        reset_key, key = jax.random.split(key)
        state, first = adapter.reset(env, reset_key, params)

        def step(carry, key):
            state, done = carry
            action_key, env_key = jax.random.split(key)
            action = jax.random.randint(action_key, (), 0, env.num_actions)
            state, after = adapter.step(env, env_key, state, action, params)
            out = (after.obs, action, after.reward, after.done, after.info)
            return (state, done | after.done), out

        _, out = jax.lax.scan(step, (state, jnp.array(False)), jax.random.split(key, horizon))
        return jnp.concatenate([first.obs[None], out[0]]), *out[1:]

    keys = jax.random.split(jax.random.key(seed), batch)
    return jax.device_get(jax.jit(jax.vmap(one))(keys))


def states_of(model):
    """Every reachable state by its observation, found by plain search."""
    found, todo = {}, [s for _, s in model.start]
    while todo:
        state = todo.pop()
        seen = tuple(round(float(x), 4) for x in model.observe(state))
        if seen not in found:
            found[seen] = state
            if not model.is_terminal(state):
                for a in range(model.num_actions):
                    todo += [o.next_state for o in model.outcomes(state, a)]
    return found


WORLDS = {
    "key_to_door": (KeyToDoor(length=8), None, 8),
    "two_keys": (KeyToDoor(length=8, num_keys=2), None, 8),
    "at_door": (KeyToDoor(length=6, treasure_at_door=True), None, 6),
    "no_door": (KeyToDoor(length=6, ignore_door=True), None, 6),
    "interleaving": (Interleaving(3, 2, 2), InterleavingParams(12, 0.1), 12),
    "tree": (Tree(depth=3, actions=3, overlap=1, seed_offset=5), None, 3),
}


@pytest.mark.parametrize("name", WORLDS)
def test_dynamics_are_those_of_the_model(name):
    """Every step's next observation and reward is one that the model allows, and each outcome of the
    model occurs as often as it says."""
    env, params, horizon = WORLDS[name]
    params = env.default_params if params is None else params
    model = env.model(params)
    states = states_of(model)
    obs, actions, rewards, done, _ = walk(env, params, horizon, 2000)
    counts, expected = {}, {}
    for i in range(len(obs)):
        for t in range(horizon):
            here, after = (tuple(round(float(x), 4) for x in obs[i, k]) for k in (t, t + 1))
            state = states[here]
            assert not model.is_terminal(state)
            a = int(actions[i, t])
            key = (here, a)
            if key not in expected:
                merged = {}
                for p, r, s in model.outcomes(state, a):
                    seen = tuple(round(float(x), 4) for x in model.observe(s))
                    merged[seen, round(r, 4)] = merged.get((seen, round(r, 4)), 0.0) + p
                expected[key] = merged
            event = (after, round(float(rewards[i, t]), 4))
            assert expected[key].get(event, 0) > 0, (state, a, event)
            counts[key, event] = counts.get((key, event), 0) + 1
            if done[i, t]:
                break
    visits = {}
    for (key, _), n in counts.items():
        visits[key] = visits.get(key, 0) + n
    for key, events in expected.items():
        n = visits[key]
        for event, p in events.items():
            error = np.sqrt(max(p * (1 - p), 1e-12) / n)
            assert abs(counts.get((key, event), 0) / n - p) <= 6 * error + 1 / n


def test_layouts():
    for length, cells in LAYOUTS.items():
        assert "".join(map(str, KeyToDoor(length=length).layout())) == cells
    long = "".join(map(str, KeyToDoor(length=103).layout()))
    assert long == f"4{FIRST_100}30"
    for length, apples in APPLES.items():
        env = KeyToDoor(length=length)
        assert env.num_apples == apples
        assert "".join(map(str, env.layout()))[:-2] == long[: length - 2]


def test_key_to_door_numbers():
    for length, value in {23: 2.0125, 103: 2.1521}.items():
        env = KeyToDoor(length=length)
        mdp = enumerate_mdp(env, env.default_params)
        assert mdp.num_states == 2 * length + 3
        with jax.enable_x64(True):
            pi = jnp.full((mdp.num_states, 4), 0.25)
            v = exact.values(mdp, pi).v
        scale = 23 / length
        assert float(v[0]) == pytest.approx(
            env.num_apples * 0.25 * 0.5 * scale + 0.2 * scale / 16, abs=1e-6
        )
        assert float(v[0]) == pytest.approx(value, abs=1e-4)
    env = KeyToDoor(length=13, ignore_door=True)
    assert enumerate_mdp(env, env.default_params).num_states == 2 * 13 + 1


def play(env, actions, params=None, seed=0):
    """Rewards and last info of fixed actions."""
    params = env.default_params if params is None else params
    state, _ = adapter.reset(env, jax.random.key(seed), params)
    rewards = []
    for t, action in enumerate(actions):
        key = jax.random.fold_in(jax.random.key(seed), t)
        state, step = adapter.step(env, key, state, action, params)
        rewards.append(float(step.reward))
        assert bool(step.terminated) == (t == len(actions) - 1)
    return rewards, step


def test_treasure_needs_key_and_door():
    env = KeyToDoor(length=6)
    scale = 23 / 6
    for key in range(4):
        for door in range(4):
            rewards, last = play(env, [key, 3, 3, 3, door, 0])
            paid = key == 0 and door == 3
            assert rewards == pytest.approx([0] * 5 + [0.2 * scale * paid], abs=1e-6)
            assert float(last.info["treasure"]) == paid
            assert float(last.obs[0]) == 1.0
            assert last.obs[1 + 5 * paid] == 1.0  # the last cell is still seen after the end
    rewards, _ = play(KeyToDoor(length=6, treasure_at_door=True), [0, 3, 3, 3, 3, 0])
    assert rewards == pytest.approx([0, 0, 0, 0, 0.2 * scale, 0], abs=1e-6)
    rewards, _ = play(KeyToDoor(length=6, ignore_door=True), [0, 3, 3, 3, 1, 0])
    assert rewards[-1] == pytest.approx(0.2 * scale, abs=1e-6)


def test_always_correct_policy():
    env = KeyToDoor(length=13)
    params, scale = env.default_params, 23 / 13
    mdp = enumerate_mdp(env, params)
    kind = mdp.observations[:, 1:7].argmax(1)
    right = np.array([3, 1, 2, 3, 0, 0])[kind]
    with jax.enable_x64(True):
        v = exact.values(mdp, jnp.asarray(np.eye(4)[right])).v
    assert float(v[0]) == pytest.approx(scale * (0.5 * env.num_apples + 0.2), abs=1e-6)


def test_random_layouts_differ_and_have_no_tables():
    env = KeyToDoor(length=30, random_distractors=True)
    states = [env.reset_env(jax.random.key(i), env.default_params)[1] for i in range(2)]
    cells = np.array([s.cells for s in states])
    assert (cells[0] != cells[1]).any()
    assert (cells[:, [0, -2, -1]] == [4, 3, 0]).all()
    with pytest.raises(ValueError, match="random_distractors=True"):
        enumerate_mdp(env, env.default_params)
    # Every apple of an episode's own layout, picked: a fraction of 1, whatever the fixed layout has.
    env = KeyToDoor(length=6, random_distractors=True, layout_seed=3)
    for seed in range(20):
        state, _ = adapter.reset(env, jax.random.key(seed), env.default_params)
        if np.isin(state.cells, (1, 2)).sum() not in (0, env.num_apples):
            break
    for t, action in enumerate(np.asarray(state.cells) % 4):
        key = jax.random.key(t)
        state, step = adapter.step(env, key, state, int(action), env.default_params)
    assert float(step.info["distractors"]) == 1.0


def test_auto_reset():
    env = KeyToDoor(length=4)
    params = env.default_params
    state, _ = adapter.reset(env, jax.random.key(0), params)
    for t in range(4):
        state, step = adapter.auto_reset_step(env, jax.random.key(t), state, 0, params)
    assert bool(step.terminated)
    assert float(step.final_obs[0]) == 1.0
    assert float(step.obs[0]) == 0.0


def test_interleaving_invariants():
    env, params = Interleaving(), InterleavingParams()
    obs, _, rewards, done, _ = walk(env, params, 100, 1000, seed=1)
    over = np.concatenate([np.zeros((1000, 1), bool), done.cumsum(1) > 0], axis=1)
    alive = ~over[:, :-1]
    lengths = alive.sum(1)
    error = lengths.std() / np.sqrt(len(lengths))
    assert abs(lengths.mean() - 20 * (1 - 0.95**100)) < 5 * error
    before, after = obs[:, :-1][alive], obs[:, 1:][alive]
    is_open, keys = before[:, 14:19], before[:, 19:24]
    assert is_open.sum(1).max() == 3
    assert (keys <= is_open).all()
    answer, context = before[:, 5] == 1, before[:, :5].argmax(1)
    row = np.arange(len(context))
    assert (is_open[row, context] == answer).all()
    assert ((rewards[alive] > 0) <= answer).all()
    paid = np.where(answer & (keys[row, context] == 1), 0.2 * (context + 1), 0.0)
    np.testing.assert_allclose(rewards[alive], paid, atol=1e-6)
    going_on = after.sum(1) > 0  # all zeros once terminated
    assert (after[row, 14 + context] == ~answer)[going_on].all()


@pytest.mark.parametrize(
    ("is_open", "keys", "context", "answer", "action", "correct"),
    [
        ([0, 0, 0], [0, 0, 0], 0, False, 1, 1.0),  # one context opened, with its key
        ([0, 0, 0], [0, 0, 0], 0, False, 0, 0.0),  # without
        ([1, 0, 0], [1, 0, 0], 1, False, 0, 0.5),  # a second one without
        ([1, 1, 0], [0, 1, 0], 2, False, 0, 1 / 3),
        ([1, 1, 0], [0, 1, 0], 0, True, 0, 1.0),  # the one without is answered and closed
        ([1, 1, 0], [0, 1, 0], 1, True, 0, 0.0),
        ([1, 0, 0], [0, 0, 0], 0, True, 1, 1.0),  # none is open: nothing is wrong
    ],
)
def test_correct_is_the_share_of_open_contexts_with_a_key(
    is_open, keys, context, answer, action, correct
):
    env = Interleaving(3, 3, 1)
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    state = state.replace(
        open=jnp.array(is_open, bool),
        keys=jnp.array(keys, bool),
        context=jnp.int32(context),
        answer=jnp.array(answer),
        flipped=jnp.int32(1),  # the rewarded object is right, action 1
    )
    info = env.step_env(jax.random.key(1), state, action, env.default_params)[-1]
    assert float(info["correct"]) == pytest.approx(correct)


def test_interleaving_sizes():
    env = Interleaving(3, 2, 1)
    # (others: none open, or one of two in two ways) × contexts × (answer 2 + query 2) + the end
    assert enumerate_mdp(env, env.default_params).num_states == 5 * 3 * 4 + 1
    full = Interleaving(2, 2, 1)
    mdp = enumerate_mdp(full, full.default_params)
    assert np.isfinite(mdp.transition).all()


def test_tree_by_hand():
    """Spec 5.3 with b = 2 and levels of 1, 3 and 7 states: j' = (2 j + a - 1) mod N, and the reward is
    ((states above + j + 9973 a + 5) mod 5) - 2."""
    env = Tree(depth=3, actions=3, overlap=1, seed_offset=5)
    model = env.model(env.default_params)
    for (level, position), action, reward, after in (
        ((0, 0), 0, -2.0, (1, 2)),  # 5; -1 mod 3
        ((0, 0), 2, -1.0, (1, 1)),  # 19951
        ((1, 0), 0, -1.0, (2, 6)),  # 6; -1 mod 7
        ((1, 1), 1, -2.0, (2, 2)),  # 9980
        ((1, 2), 2, 2.0, (2, 5)),  # 19954
        ((2, 1), 1, 1.0, (3, -1)),  # 9983; the end
    ):
        assert model.outcomes((level, position), action) == [Outcome(1.0, reward, after)]
        _, state = env.reset_env(jax.random.key(0), env.default_params)
        state = state.replace(time=jnp.int32(level), position=jnp.int32(position))
        _, state, paid, _, _ = env.step_env(jax.random.key(0), state, action, env.default_params)
        assert (float(paid), int(state.time), int(state.position)) == (reward, *after)


@pytest.mark.parametrize("overlap", range(4))
def test_tree_sizes(overlap):
    env = Tree(depth=4, actions=3, overlap=overlap, seed_offset=11)
    b, o = 3 - overlap, overlap
    closed = [
        1 + o * i if b == 1 else ((3 - 1) * b**i - o) // (b - 1) if b > 1 else (o if i else 1)
        for i in range(4)
    ]
    assert env.level_sizes() == closed
    mdp = enumerate_mdp(env, env.default_params)
    assert mdp.num_states == sum(closed) + 1  # all reachable, one end
    paid = mdp.reward_values[mdp.reward_probs.argmax(-1)]
    assert set(np.unique(paid)) <= {-2, -1, 0, 1, 2}
    np.testing.assert_array_equal(
        env.grouping(mdp, 1)[~mdp.terminal] - 2, paid[~mdp.terminal].astype(int)
    )
    fine = env.grouping(mdp, 4)
    np.testing.assert_array_equal(fine[~mdp.terminal] % 5, env.grouping(mdp, 1)[~mdp.terminal])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeyToDoor(length=3), "length=3"),
        (lambda: KeyToDoor(num_keys=0), "num_keys=0"),
        (lambda: KeyToDoor(distractor_prob=1.5), "distractor_prob=1.5"),
        (lambda: KeyToDoor().make_params(treasure=()), "treasure=()"),
        (lambda: Interleaving(max_open=6), "max_open=6"),
        (lambda: Interleaving(contexts=0), "contexts=0"),
        (lambda: Interleaving(objects=0), "objects=0"),
        (lambda: Tree(overlap=7), "overlap=7"),
        (lambda: Tree(depth=0), "depth=0"),
        (lambda: Tree(depth=13, actions=6), "depth=13: allowed are trees whose number of states"),
        (lambda: Tree(depth=10**9, actions=2), "depth=1000000000"),
        (lambda: Tree(num_rewards=1), "num_rewards=1"),
        (lambda: Tree(seed_offset=-1), "seed_offset=-1"),
        (lambda: reward_index(0.5, np.array([0.0, 1.0])), "reward 0.5 is not in the list"),
        (lambda: enumerate_mdp(object()), "env is object"),
        (
            lambda: enumerate_mdp(KeyToDoor(length=6), KeyToDoor(length=6).default_params, 5),
            "horizon=5 is shorter than an episode",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
