"""Texts of the expert against the definition of the language, and played again in the world."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.tokens.expert import generate
from envs.tokens.language import Chunk, Language
from envs.tokens.tables import CHUNKS, FOUR
from envs.tokens.world import TokenWorld
from tests.envs.tokens import brute

WORLD = TokenWorld(Language(CHUNKS[:4]), FOUR, horizon=23)
SPELLINGS = [chunk.spellings for chunk in CHUNKS[:4]]
PAUSE = WORLD.language.pause
KEY = jax.random.key(1)
COUNT = 128


def texts(world=WORLD, count=COUNT, **kwargs):
    return jax.device_get(jax.jit(partial(generate, world=world, n=count, **kwargs))(KEY))


@pytest.fixture(scope="module")
def drawn():
    return texts()


def test_texts_are_spellings_of_their_tasks(drawn):
    for i in range(COUNT):
        prompt = drawn.obs[i, :4].tolist()
        length, task = drawn.length[i], WORLD.sequences[drawn.task[i]]
        assert (drawn.action[i, :3] == PAUSE).all()
        written = drawn.action[i, 3:length].tolist()
        letters = "".join(str(prompt.index(x)) for x in written)
        parts = dict(brute.spelled(SPELLINGS, task))[letters]
        assert drawn.obs[i, 4 : length + 1].tolist() == written
        subgoal = [0] * 3 + np.repeat(np.arange(4), parts).tolist()
        assert drawn.subgoal[i, :length].tolist() == subgoal
        assert drawn.goal[i, :length].tolist() == [int(task[j]) for j in subgoal]
        assert (drawn.obs[i, length + 1 :] == PAUSE).all()
        assert (drawn.action[i, length:] == PAUSE).all()
        assert (drawn.subgoal[i, length:] == 3).all()
        assert (drawn.goal[i, length:] == int(task[-1])).all()


@pytest.mark.parametrize("clean", [False, True])
def test_played_again_in_the_world_they_earn_the_reward_in_the_last_step(clean):
    made = texts(clean=clean)
    start = (jnp.asarray(made.obs[:, :4]), jnp.asarray(made.task))

    def step(state, action):
        goal, progress = jax.vmap(WORLD.goal)(state), state.progress
        state, seen = jax.vmap(WORLD.step, in_axes=(None, 0, 0))(KEY, state, action)
        return state, (goal, progress, seen.obs, seen.reward, seen.terminated)

    state, first = jax.vmap(WORLD.reset)(start)
    state, records = jax.lax.scan(step, state, jnp.asarray(made.action.T))
    goal, progress, obs, reward, terminated = (np.asarray(x).T for x in records)
    steps = np.arange(23)[None]
    valid, last = steps < made.length[:, None], steps == made.length[:, None] - 1
    np.testing.assert_array_equal(first.obs, made.obs[:, 0])
    np.testing.assert_array_equal(obs[valid], made.obs[:, 1:][valid])
    np.testing.assert_array_equal(goal[valid], made.goal[valid])
    np.testing.assert_array_equal(progress[valid], made.subgoal[valid])
    np.testing.assert_array_equal(reward, last)
    np.testing.assert_array_equal(terminated[valid], last[valid])
    assert jax.vmap(WORLD.outcome)(state)["success"].all()


def test_spellings_are_drawn_as_the_definition_says():
    chunks = (("02", "012", "0112"), ("1",))
    language = Language(tuple(Chunk("", s) for s in chunks), prompt_length=3, symbols=4)
    made = texts(TokenWorld(language, ("01", "10"), horizon=7), count=4000)
    counts = {}
    for obs, action, length, task in zip(
        made.obs, made.action, made.length, made.task, strict=True
    ):
        said = "".join(str(obs[:3].tolist().index(x)) for x in action[2:length])
        counts[int(task), said] = counts.get((int(task), said), 0) + 1
    chi2 = 0.0
    expected = {}
    for i, task in enumerate(("01", "10")):
        for text, _ in brute.spelled(chunks, task):
            p = 0.5
            for j, letter in enumerate(text):
                p *= brute.probability(chunks, task, text[:j], letter)
            expected[i, text] = 4000 * p
            chi2 += (counts.get((i, text), 0) - 4000 * p) ** 2 / (4000 * p)
    assert set(counts) == set(expected)
    assert sum(expected.values()) == pytest.approx(4000)
    assert expected[0, "021"] == pytest.approx(
        1000
    )  # "2" after "0" is one of two, not one of three
    assert chi2 < 21  # 5 degrees of freedom, p < 0.001


def test_clean_texts_take_what_stands_first_in_the_prompt():
    made = texts(clean=True)
    clean = ("00112", "210", "320", "00113")
    for i in range(COUNT):
        prompt = made.obs[i, :4].tolist()
        letters = "".join(str(prompt.index(x)) for x in made.action[i, 3 : made.length[i]])
        assert letters == "".join(clean[int(c)] for c in WORLD.sequences[made.task[i]])


def test_noise_is_pauses_and_the_horizon_cuts():
    made = texts(epsilon=0.25, count=512)
    steps = np.arange(23)[None]
    written = (steps >= 3) & (steps < made.length[:, None])
    pauses = (made.action == PAUSE) & written
    assert abs(pauses.sum() / written.sum() - 0.25) < 0.02
    cut = 0
    for i in range(512):
        prompt, task = made.obs[i, :4].tolist(), WORLD.sequences[made.task[i]]
        said = made.action[i, 3 : made.length[i]].tolist()
        success, wrong, _ = brute.judge(SPELLINGS, prompt, task, said, PAUSE)
        assert not wrong
        assert success | (made.length[i] == 23)
        _, _, before = brute.judge(SPELLINGS, prompt, task, said[:-1], PAUSE)
        assert before == made.subgoal[i, made.length[i] - 1]
        cut += not success
    assert 0 < cut < 512


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, "n=0: allowed is 1 or more"),
        ({"n": 1, "epsilon": 1.5}, r"epsilon=1.5: allowed is \[0, 1\]"),
        ({"n": 1, "epsilon": -0.1}, r"epsilon=-0.1: allowed is \[0, 1\]"),
    ],
)
def test_wrong_settings_are_named_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message):
        generate(KEY, WORLD, **kwargs)
