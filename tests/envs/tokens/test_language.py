"""Spellings, the grammar's tables, task sets, and what is refused."""

from itertools import pairwise, product

import numpy as np
import pytest

from envs.tokens.language import Chunk, Language, encode_tasks, stuttered
from envs.tokens.tables import CHUNKS, FOUR, POST_FOUR, orders

LANGUAGE = Language(CHUNKS)


def test_stuttered_says_every_position_but_the_last_once_or_twice():
    assert stuttered("012") == ("012", "0112", "0012", "00112")
    assert stuttered("3") == ("3",)


def test_walking_the_tree_accepts_exactly_the_spellings():
    grammar = LANGUAGE.grammar
    found = set()
    for chunk, letters in product(range(len(CHUNKS)), _strings("0123", 5)):
        node, done = 0, False
        for letter in map(int, letters):
            if done or not grammar.allowed[chunk, node, letter]:
                break
            done = grammar.complete[node, letter]
            node = grammar.child[node, letter]
        else:
            if done:
                assert node == 0
                found.add((chunk, letters))
    assert found == {(c, s) for c, chunk in enumerate(CHUNKS) for s in chunk.spellings}


def _strings(letters, longest):
    for length in range(1, longest + 1):
        yield from map("".join, product(letters, repeat=length))


def test_choice_is_uniform_over_what_is_allowed():
    grammar = LANGUAGE.grammar
    possible = grammar.allowed.any(axis=-1)
    np.testing.assert_allclose(grammar.choice.sum(axis=-1), possible, atol=1e-6)
    ways = grammar.allowed.sum(axis=-1)[possible]
    np.testing.assert_allclose(grammar.choice.max(axis=-1)[possible], 1 / ways, atol=1e-6)
    assert not grammar.choice[~grammar.allowed].any()


def test_chunks_come_in_pairs_that_begin_alike():
    first = [chunk.spellings[0][0] for chunk in CHUNKS]
    assert [i for i in range(8) for j in range(i) if first[i] == first[j]] == [3, 4, 5, 7]
    assert [first[i] == first[i + 3] for i in range(3)] == [True] * 3


def test_what_decides_at_an_unseen_transition_is_mostly_open_in_training():
    """Else no controller could learn to decide it."""
    order = [chunk.spellings[0] for chunk in CHUNKS]
    before = [(a, b) for task in FOUR for a, b in pairwise("^" + task)]
    for last, chunk in pairwise(POST_FOUR[0]):
        word = order[int(chunk)]
        # The first letter with which nothing agrees that follows `last` in training.
        letter = next(
            i
            for i in range(3)
            if not any(order[int(b)][: i + 1] == word[: i + 1] for a, b in before if a == last)
        )
        is_open = [
            any(
                order[int(b)][:letter] == word[:letter] and order[int(b)][letter] != word[letter]
                for a, b in before
                if a == context
            )
            for context, other in before
            if other == chunk
        ]
        assert np.mean(is_open) > 0.5


def test_transitions_of_the_held_out_task_never_occur_in_training():
    seen = {a + b for task in FOUR for a, b in pairwise(task)}
    unseen = {a + b for a, b in pairwise(POST_FOUR[0])}
    assert not seen & unseen
    assert seen | unseen == {f"{a}{b}" for a in range(4) for b in range(4) if a != b}
    assert len(FOUR) == 45
    assert all(len(task) == len(POST_FOUR[0]) for task in FOUR)


def test_orders_are_all_but_repetitions_and_the_unseen():
    assert orders(3, 2) == ("01", "02", "10", "12", "20", "21")
    assert orders(3, 3, unseen=("01", "20")) == ("021", "102", "121", "210", "212")


def test_tasks_as_arrays():
    sequences, lengths = encode_tasks(("02", "1"), 3)
    assert sequences.tolist() == [[0, 2], [1, -1]]
    assert lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Language(CHUNKS, prompt_length=0), "prompt_length=0: allowed is 1 to 10"),
        (lambda: Language(CHUNKS, symbols=3), "symbols=3: allowed is 4 to 26"),
        (lambda: Language(CHUNKS, symbols=27), "symbols=27: allowed is 4 to 26"),
        (lambda: Language(()), "chunks: 0 given; allowed is 1 to 10"),
        (lambda: Language((Chunk("x", ()),)), "chunks: 'x' has no spellings"),
        (
            lambda: Language((Chunk("x", ("04",)),)),
            "spelling '04' of 'x'; allowed are digits 0 to 3",
        ),
        (lambda: Language((Chunk("x", ("",)),)), "spelling '' of 'x'"),
        (
            lambda: Language((Chunk("x", ("12", "0")), Chunk("y", ("01",)))),
            "spelling '0' of 'x' begins '01' of 'y'",
        ),
        (lambda: Language((Chunk("x", ("0", "0")),)), "spelling '0' of 'x' begins '0' of 'x'"),
        (lambda: encode_tasks((), 3), r"sequences=\(\): allowed are one or more tasks"),
        (lambda: encode_tasks("01", 3), "sequences='01': allowed are one or more tasks"),
        (lambda: encode_tasks(("03",), 3), "sequences contain '03': allowed are digits 0 to 2"),
        (lambda: encode_tasks(("",), 3), "sequences contain ''"),
        (lambda: encode_tasks(("0²",), 3), "sequences contain '0²'"),
    ],
)
def test_wrong_settings_are_named_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
