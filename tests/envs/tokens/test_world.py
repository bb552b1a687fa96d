"""The rules against a parser that tries all spellings on the whole text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.tokens.expert import generate
from envs.tokens.language import Chunk, Language
from envs.tokens.tables import CHUNKS, FOUR, POST_FOUR
from envs.tokens.world import TokenWorld
from envs.world import World
from tests.envs.tokens import brute

TINY = Language(
    tuple(Chunk(f"c{i}", s) for i, s in enumerate(brute.TINY)), prompt_length=2, symbols=3
)
TINY_WORLD = TokenWorld(TINY, ("01", "10", "1"), horizon=9)
PATIENT = TokenWorld(TINY, ("01", "10", "1"), horizon=9, fail_early=False)
LARGE = TokenWorld(Language(CHUNKS[:4]), (*FOUR, *POST_FOUR), horizon=30, fail_early=False)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def play():
    """Jitted play: world, prompt, task, actions [n] → states and time steps after each of them."""

    def scan(world, prompt, task, actions):
        def step(state, action):
            state, seen = world.step(KEY, state, action)
            return state, (state, seen)

        return jax.lax.scan(step, world.reset((prompt, task))[0], actions)[1]

    return jax.jit(scan, static_argnums=0)


def run(play, world, prompt, task, written):
    reading = [world.language.pause] * world.reading_steps
    actions = jnp.array([*reading, *written], jnp.int32)
    states, seen = play(world, jnp.array(prompt, jnp.int32), jnp.int32(task), actions)
    after = slice(world.reading_steps, None)
    cut = lambda x: np.asarray(x)[after]  # noqa: E731
    return jax.tree.map(cut, states), jax.tree.map(cut, seen)


def check_against_parser(play, world, prompt, task, written):
    """Every prefix of the text, until the task is complete."""
    states, seen = run(play, world, prompt, task, written)
    chunks = [chunk.spellings for chunk in world.language.chunks]
    pause = world.language.pause
    for i in range(len(written)):
        expected = brute.judge(chunks, prompt, world.sequences[task], written[: i + 1], pause)
        success = bool(states.progress[i] >= len(world.sequences[task]))
        assert (success, bool(states.wrong[i]), int(states.progress[i])) == expected
        assert float(seen.reward[i]) == float(success)
        assert bool(seen.terminated[i]) == success | (world.fail_early and expected[1])
        if success or (expected[1] and world.fail_early):
            return


@pytest.mark.parametrize("world", [TINY_WORLD, PATIENT], ids=["fail_early", "patient"])
@given(
    prompt=st.permutations(range(3)).map(lambda x: x[:2]),
    task=st.integers(0, 2),
    written=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_random_texts_are_judged_as_by_the_parser(play, world, prompt, task, written):
    check_against_parser(play, world, prompt, task, written)


@given(data=st.data())
def test_almost_right_texts_are_judged_as_by_the_parser(play, data):
    draw = data.draw
    prompt = draw(st.permutations(range(12)))[:4]
    task = draw(st.integers(0, len(LARGE.sequences) - 1))
    written = [
        prompt[int(letter)]
        for chunk in LARGE.sequences[task]
        for letter in draw(st.sampled_from(CHUNKS[int(chunk)].spellings))
    ]
    for _ in range(draw(st.integers(0, 2))):
        written[draw(st.integers(0, len(written) - 1))] = draw(st.sampled_from([*prompt, 12]))
    written += [12] * (27 - len(written))
    check_against_parser(play, LARGE, prompt, task, written)


def test_the_prompt_is_shown_first_whatever_is_done(play):
    actions = jnp.array([9, 12, 3, 4, 8], jnp.int32)
    prompt = jnp.array([4, 8, 1, 7], jnp.int32)
    _, first = LARGE.reset((prompt, jnp.int32(0)))
    states, seen = play(LARGE, prompt, jnp.int32(LARGE.sequences.index("0123")), actions)
    assert int(first.obs) == 4
    assert seen.obs.tolist() == [8, 1, 7, 4, 8]
    assert states.tokens[-1].tolist() == [4, 8, 1, 7, 4, 8] + [-1] * 25
    assert not states.wrong.any()


def test_a_wrong_token_ends_the_episode_unless_the_verifier_waits(play):
    wrong = [2, *[0, 1] * 3, 0]  # a symbol that is not in the prompt
    for world, ends in ((TINY_WORLD, 0), (PATIENT, 7)):
        states, seen = run(play, world, (0, 1), 0, wrong)
        done = np.asarray(seen.terminated | seen.truncated)
        assert done.argmax() == ends
        assert seen.terminated.any() == (world is TINY_WORLD)
        assert seen.truncated.tolist() == [False] * 7 + [True]
        assert states.wrong.all()
        assert not seen.reward.any()


def test_the_task_can_be_completed_in_the_last_step(play):
    states, seen = run(play, TINY_WORLD, (0, 1), 0, [3, 3, 0, 0, 1, 1, 1, 0])
    assert seen.reward.tolist() == [0.0] * 7 + [1.0]
    assert seen.terminated[-1]
    assert seen.truncated[-1]
    assert TINY_WORLD.outcome(jax.tree.map(lambda x: x[-1], states))["success"]


def test_nothing_pays_after_the_end(play):
    _, seen = run(play, TINY_WORLD, (0, 1), 2, [1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    assert seen.reward.tolist() == [0.0, 1.0] + [0.0] * 9


def test_it_is_a_world():
    world: World = TINY_WORLD
    assert isinstance(world, World)
    assert world.obs_spec.num_tokens == world.action_spec.num_actions == 4
    assert world.num_goals == 2
    assert world.reward_kinds == (1.0,)
    assert (world.name_goal(1), world.name_task(0)) == ("c1", "c0 c1")
    (prompt, task), metrics = world.starts(KEY, 5)
    state, first = jax.vmap(world.reset)((prompt, task))
    after, seen = jax.vmap(world.step)(jax.random.split(KEY, 5), state, first.obs)
    assert jax.tree.structure(first) == jax.tree.structure(seen)
    for old, new in zip(
        jax.tree.leaves((state, first)), jax.tree.leaves((after, seen)), strict=True
    ):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert first.obs.dtype == world.obs_spec.dtype
    assert metrics == {}


def test_starts_are_uniform_over_prompts_and_tasks():
    prompt, task = jax.jit(lambda key: TINY_WORLD.starts(key, 6000)[0])(KEY)
    found = np.asarray(prompt[:, 0] * 3 + prompt[:, 1])
    assert np.bincount(found, minlength=9)[[0, 4, 8]].sum() == 0  # symbols differ
    counts = np.bincount(found * 3 + np.asarray(task), minlength=27)
    counts = counts[counts > 0]
    assert len(counts) == 18
    assert ((counts - 6000 / 18) ** 2 / (6000 / 18)).sum() < 45  # χ² with 17 degrees of freedom


def test_uniform_tokens_succeed_as_often_as_spellings_say():
    """Sum of V^-length over all texts; for the held-out task of the default language too little to ever see."""
    chance = lambda spellings, tokens: sum(tokens ** -len(s) for s in spellings)  # noqa: E731
    world = TokenWorld(TINY, ("1",), horizon=4)  # no room for pauses: "10" and "110" in three steps
    count = 40_000
    state, _ = jax.vmap(world.reset)(world.starts(KEY, count)[0])
    tokens = jax.random.randint(KEY, (4, count), 0, 4, jnp.int32)
    step = jax.vmap(lambda s, a: world.step(KEY, s, a)[0])
    for action in tokens:
        state = step(state, action)
    # Of two letters there may also be one pause before, between or behind them.
    expected = chance(("10", "110"), 4) + 2 * 4.0**-3
    assert abs(float(jnp.mean(state.progress == 1)) - expected) < 5 * (expected / count) ** 0.5
    default = np.prod([chance(CHUNKS[int(c)].spellings, 13) for c in POST_FOUR[0]])
    assert default < 1e-12


def test_renaming_symbols_keeps_all_that_is_said_about_chunks():
    world = TokenWorld(Language(CHUNKS[:4]), FOUR, horizon=23)
    texts = jax.jit(lambda key: generate(key, world, 32))(KEY)
    time = jnp.broadcast_to(jnp.arange(24, dtype=jnp.int32), (32, 24))
    seen = np.asarray(jax.jit(world.view)(KEY, texts, time))
    obs = np.asarray(texts.obs)
    assert (seen != obs).any(axis=1).all()
    for old, new in zip(obs, seen, strict=True):
        names = dict(zip(old.tolist(), new.tolist(), strict=True))
        assert [names[x] for x in old.tolist()] == new.tolist()
        assert len(set(names.values())) == len(names)
        assert names.get(12, 12) == 12
    backwards = jax.jit(world.view)(KEY, texts, time[:, ::-1])
    np.testing.assert_array_equal(backwards, seen[:, ::-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TokenWorld(LARGE.language, ("0", "0123"), horizon=22),
            "horizon=22: allowed is 23 or more, the steps of the longest text of task 0123",
        ),
        (lambda: TokenWorld(TINY, ("02",), 9), "sequences contain '02': allowed are digits 0 to 1"),
    ],
)
def test_wrong_settings_are_named_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
