"""Entropies against enumeration of all tasks and texts of a tiny language, in plain Python."""

from math import log

import jax
import numpy as np
import pytest

from envs.tokens.expert import generate
from envs.tokens.language import Chunk, Language
from envs.tokens.oracle import oracle_nll, per_step
from envs.tokens.tables import CHUNKS, FOUR, POST_FOUR
from envs.tokens.world import TokenWorld
from tests.envs.tokens import brute

CHUNKS3 = (("01", "001"), ("02", "112", "12"), ("2",))
"""Chunks 0 and 1 begin alike."""

LANGUAGE = Language(tuple(Chunk("", s) for s in CHUNKS3), prompt_length=3, symbols=5)
WORLD = TokenWorld(LANGUAGE, ("01", "10", "012", "21"), horizon=12)
KEY = jax.random.key(2)


def paid(task, text, epsilon=0.0, pauses=()):
    """−log p per written token given the task, and given the past alone; `pauses` are letters "." of the text."""
    weights = dict.fromkeys(WORLD.sequences, 1.0)
    expert, bayes, letters = [], [], ""
    for token in text:
        # A task whose text would have ended is not asked any more.
        weights = {
            t: 0.0 if letters in {x for x, _ in brute.spelled(CHUNKS3, t)} else w
            for t, w in weights.items()
        }
        if token == ".":
            probs = dict.fromkeys(weights, epsilon)
        else:
            probs = {
                t: (1 - epsilon) * brute.probability(CHUNKS3, t, letters, token) for t in weights
            }
            letters += token
        expert.append(-log(probs[task]))
        before = sum(weights.values())
        weights = {t: w * probs[t] for t, w in weights.items()}
        bayes.append(log(before) - log(sum(weights.values())))
    return expert, bayes


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_every_step_pays_what_enumeration_says(epsilon):
    texts = jax.device_get(jax.jit(lambda key: generate(key, WORLD, 96, epsilon))(KEY))
    expert, bayes, valid = jax.jit(lambda x: per_step(WORLD, x, epsilon))(texts)
    tasks = set()
    for i, (obs, action) in enumerate(zip(texts.obs, texts.action, strict=True)):
        length, prompt = texts.length[i], obs[:3].tolist()
        said = "".join("." if x == 5 else str(prompt.index(x)) for x in action[2:length])
        task = WORLD.sequences[texts.task[i]]
        expected = paid(task, said, epsilon)
        for found, wanted in zip((expert[i], bayes[i]), expected, strict=True):
            np.testing.assert_allclose(found[2:length], wanted, atol=1e-5)
            np.testing.assert_array_equal(found[:2], 0.0)
            np.testing.assert_array_equal(found[length:], 0.0)
        np.testing.assert_array_equal(valid[i], np.arange(12) < length)
        tasks.add(task)
    assert tasks == set(WORLD.sequences)


def test_the_mean_is_that_over_all_texts():
    total = np.zeros(3)  # expert, Bayes, steps
    for task in WORLD.sequences:
        for text, _ in brute.spelled(CHUNKS3, task):
            expert, bayes = paid(task, text)
            p = np.exp(-sum(expert)) / len(WORLD.sequences)
            total += p * np.array([sum(expert), sum(bayes), 2 + len(text)])
    found = jax.jit(lambda key: oracle_nll(key, WORLD, 8192))(KEY)
    assert float(found["length"]) == pytest.approx(total[2], abs=0.05)
    assert float(found["expert"]) == pytest.approx(total[0] / total[2], abs=0.005)
    assert float(found["bayes"]) == pytest.approx(total[1] / total[2], abs=0.01)


def test_who_knows_the_task_pays_two_binary_choices_per_chunk():
    world = TokenWorld(Language(CHUNKS[:4]), FOUR, horizon=23)
    found = jax.jit(lambda key: world.oracle(key, 4096))(KEY)
    assert float(found["length"]) == pytest.approx(3 + 4 * 4, abs=0.1)
    assert float(found["expert"]) == pytest.approx(4 * 2 * log(2) / 19, abs=0.002)
    # Tasks of equal length that are read in one way only: what is to be inferred is ln 45 nats in all.
    extra = (found["bayes"] - found["expert"]) * found["length"]
    assert float(extra) == pytest.approx(log(45), abs=0.05)


def test_of_a_single_task_nothing_is_to_be_inferred():
    world = TokenWorld(Language(CHUNKS[:4]), POST_FOUR, horizon=23)
    found = jax.jit(lambda key: world.oracle(key, 256))(KEY)
    assert float(found["bayes"]) == pytest.approx(float(found["expert"]), abs=1e-6)
