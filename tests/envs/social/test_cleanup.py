import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.social.cleanup import (
    APPLE,
    DIRT,
    DOWN,
    EMPTY,
    LEFT,
    RIGHT,
    STAY,
    UP,
    ZAP,
    CleanUp,
    CleanUpState,
)

ENV = CleanUp()
STEP = jax.jit(ENV.step)
RESET = jax.jit(ENV.reset)


def state(positions=((2, 1), (4, 2)), frozen=(0, 0), objects=()):
    cells = np.zeros(20, np.int32)
    for cell, what in dict(objects).items():
        cells[cell] = what
    return CleanUpState(
        jnp.array(positions, jnp.int32), jnp.array(frozen, jnp.int32), jnp.asarray(cells)
    )


def act(start, first, second, seed=0):
    return STEP(jax.random.key(seed), start, jnp.array([first, second], jnp.int32))


def test_reset():
    start, obs = RESET(jax.random.key(0))
    assert int((start.objects == DIRT).sum()) == 3
    assert int((start.objects == APPLE).sum()) == 0
    assert set(np.flatnonzero(start.objects == DIRT)) <= set(ENV.river)
    assert obs.shape == (2, 24)
    assert ENV.encode(obs).shape == (2, ENV.obs_dim) == (2, 102)


@pytest.mark.parametrize(
    ("action", "cell"),
    [(RIGHT, (2, 2)), (LEFT, (2, 0)), (UP, (1, 1)), (DOWN, (3, 1)), (STAY, (2, 1)), (ZAP, (2, 1))],
)
def test_moves(action, cell):
    after, _ = act(state(), action, STAY)
    assert tuple(after.position[0].tolist()) == cell


def test_walls_block():
    after, _ = act(state(((0, 0), (4, 3))), UP, DOWN)
    assert after.position.tolist() == [[0, 0], [4, 3]]


def test_eating_and_cleaning_come_before_moving():
    dirty = {3: DIRT, 7: DIRT, 11: DIRT, 15: DIRT, 19: DIRT}  # nothing grows
    after, step = act(state(((0, 0), (1, 3)), objects={0: APPLE, **dirty}), RIGHT, LEFT)
    assert step.reward.tolist() == [1, 0]
    assert step.info["cleaned"].tolist() == [0, 1]
    assert int(after.objects[0]) == EMPTY
    assert int(after.objects[7]) in (EMPTY, DIRT)


def test_one_apple_feeds_one_player():
    winners = set()
    for seed in range(12):
        _, step = act(state(((0, 0), (0, 0)), objects={0: APPLE}), STAY, STAY, seed)
        assert float(step.reward.sum()) == 1.0
        winners.add(int(step.reward[1]))
    assert winners == {0, 1}


def test_a_zapped_player_sits_out_five_steps():
    start = state(((2, 1), (4, 2)))  # Chebyshev distance 2
    hits = [act(start, ZAP, UP, seed)[0] for seed in range(20)]
    frozen = [s for s in hits if int(s.frozen[1]) == 5]
    assert 12 <= len(frozen) < 21
    s = frozen[0]
    assert s.position[1].tolist() == [4, 2]
    for left in (4, 3, 2, 1, 0):
        s, step = act(s, ZAP, UP)
        assert s.position[1].tolist() == [4, 2]
        assert int(s.frozen[1]) == left  # cannot be zapped again
        assert float(step.info["zapped"].sum()) == 0
    s, _ = act(s, STAY, UP)
    assert s.position[1].tolist() == [3, 2]


def test_out_of_range():
    for seed in range(5):
        after, _ = act(state(((0, 0), (3, 0))), ZAP, STAY, seed)
        assert after.frozen.tolist() == [0, 0]


def test_players_see_the_same_with_roles_exchanged():
    start = state(((2, 1), (4, 2)), frozen=(0, 3), objects={4: APPLE, 7: DIRT})
    swapped = start.replace(position=start.position[::-1], frozen=start.frozen[::-1])
    np.testing.assert_array_equal(ENV._observe(start)[1], ENV._observe(swapped)[0])


def scripted(first, second, episodes=150):
    """Mean reward per step of each player, mean dirt and apples, over whole episodes."""

    def episode(key):
        key_reset, key_run = jax.random.split(key)
        start, _ = ENV.reset(key_reset)

        def one(carry, key):
            s, limits = carry
            keys = jax.random.split(key, 3)
            actions = jnp.stack([first(keys[0], s, 0), second(keys[1], s, 1)])
            before = s.objects
            s, step = ENV.step(keys[2], s, actions)
            grew = jnp.sum((s.objects == DIRT) & (before != DIRT))
            dirty = jnp.sum(before == DIRT)
            apples = jnp.sum((s.objects == APPLE) & (before != APPLE))
            limits = limits & (grew <= 1) & ((dirty < 3) | (apples == 0) | (dirty == 0))
            return (s, limits), (step.reward, step.info["dirt"], step.info["apples"])

        carry, record = jax.lax.scan(one, (start, jnp.bool_(True)), jax.random.split(key_run, 64))
        return carry[1], jax.tree.map(lambda x: x.mean(0), record)

    ok, (reward, dirt, apples) = jax.jit(jax.vmap(episode))(
        jax.random.split(jax.random.key(1), episodes)
    )
    assert bool(ok.all())
    return (*reward.mean(0).tolist(), float(dirt.mean()), float(apples.mean()))


def uniform(key, s, me):
    return jax.random.randint(key, (), 0, 6)


def peaceful(key, s, me):
    return jnp.array([RIGHT, LEFT, UP, DOWN, STAY])[jax.random.randint(key, (), 0, 5)]


def seeker(what, idle):
    """Walks to the nearest cell with `what`, rows before columns; `idle` where there is none."""

    def move(key, s, me):
        cells = jnp.arange(20)
        rows, columns = cells // 4 - s.position[me, 0], cells % 4 - s.position[me, 1]
        distance = jnp.where(s.objects == what, jnp.abs(rows) + jnp.abs(columns), 99)
        target = jnp.argmin(distance)
        dr, dc = rows[target], columns[target]
        vertical = jnp.where(dr > 0, DOWN, UP)
        horizontal = jnp.where(dc > 0, RIGHT, jnp.where(dc < 0, LEFT, STAY))
        step = jnp.where(dr != 0, vertical, horizontal)
        return jnp.where(distance[target] == 99, idle, step)

    return move


def test_scripted_values():
    """The spec's sanity table (400 episodes there), within sampling error."""
    random = scripted(uniform, uniform)
    assert random[0] == pytest.approx(0.006, abs=0.004)
    assert random[2] == pytest.approx(4.0, abs=0.2)
    without_zaps = scripted(peaceful, peaceful)
    assert without_zaps[0] == pytest.approx(0.015, abs=0.006)
    cleaners = scripted(seeker(DIRT, STAY), seeker(DIRT, STAY))
    assert sum(cleaners[:2]) < 0.01
    assert cleaners[3] == pytest.approx(4.1, abs=0.2)
    cleaner = scripted(seeker(DIRT, STAY), seeker(APPLE, LEFT))
    assert cleaner[0] < 0.03
    assert cleaner[3] == pytest.approx(1.6, abs=0.2)
    assert cleaner[1] == pytest.approx(0.39, abs=0.03)
    assert cleaner[2] == pytest.approx(1.46, abs=0.15)
    harvesters = scripted(seeker(APPLE, LEFT), seeker(APPLE, LEFT))
    assert sum(harvesters[:2]) < 0.02
    assert harvesters[2] == pytest.approx(4.9, abs=0.15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 0}, "rows is 0; allowed: at least 1"),
        ({"initial_dirt": 6}, "initial_dirt is 6; allowed: 0 to 5"),
        ({"zap_probability": 1.2}, r"zap_probability is 1.2; allowed: in \[0, 1\]"),
        ({"distance": "euclid"}, "distance is 'euclid'; allowed: chebyshev, manhattan"),
        ({"rows": 50}, r"rows \* columns is 200; allowed: at most 127"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        CleanUp(**fields)
