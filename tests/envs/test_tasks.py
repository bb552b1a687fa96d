"""Task sets as data."""

import numpy as np
import pytest

from envs.pinpad import tasks


def test_tables_are_the_papers():
    a1 = (
        "014501 014523 016723 230145 236723 236745 450145 450167 452367 670123 672367 674501 "
        "016745 230167 450123 674523"
    )
    a2 = "032 103 210 321 020 021 031 102 131 132 202 203 213 310 313 320"
    assert " ".join(tasks.TABLE_A1) == a1
    assert " ".join(tasks.TABLE_A2) == a2
    assert tasks.POST_A1 == ("012345670123",)
    assert tasks.POST_A2 == ("0123",)


def test_post_training_tasks_are_new():
    """Longer, and with orders of sub-goals that no pretraining task has.

    01→23 and 67→01 do occur in Table A1 (450123, 670123), 23→45 and 45→67 do not.
    """
    assert not any(order in task for task in tasks.TABLE_A1 for order in ("2345", "4567"))
    assert max(len(task) for task in tasks.TABLE_A1) < len(tasks.POST_A1[0])
    assert not any("0123"[i : i + 3] in tasks.TABLE_A2 for i in range(2))


def test_encode_pads_with_minus_one_and_decodes():
    encoded = tasks.encode_tasks(("03", "1", "220"), 4)
    np.testing.assert_array_equal(encoded.sequences, [[0, 3, -1], [1, -1, -1], [2, 2, 0]])
    np.testing.assert_array_equal(encoded.lengths, [2, 1, 3])
    assert encoded.sequences.dtype == encoded.lengths.dtype == np.int32
    assert tasks.decode_tasks(encoded) == ("03", "1", "220")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("01", "042"), r"task '042': colour 4 does not exist; num_objects=4 allows 0\.\.3"),
        (("0x1",), "task '0x1': 'x' is not a colour"),
        (("0²",), "task '0²': '²' is not a colour"),
        (("01", ""), "task '' is empty"),
        ((), "is empty; expected at least one task"),
        ("012", "is one string; expected a sequence"),
    ],
)
def test_parsing_errors(bad, message):
    with pytest.raises(ValueError, match=message):
        tasks.encode_tasks(bad, 4)


@pytest.mark.parametrize(
    ("task", "moves"),
    [
        ("0", 1),
        ("01", 2),
        ("00", 3),  # out of the cell and back
        ("0123", 4),
        ("0101", 4),
        ("0120", 5),  # three cells cannot all be neighbours of each other
        ("012345670123", 12),
    ],
)
def test_minimum_moves(task, moves):
    assert tasks.minimum_moves(task) == moves
