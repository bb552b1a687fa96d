import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.analysis.switching import switch_alignment

TIME = 10
CHANGES = np.zeros((2, TIME), bool)
CHANGES[0, [3, 7]] = True
CHANGES[1, [2]] = True
VALID = np.arange(TIME)[None] < np.array([[9], [5]])


def align(switch, changes=CHANGES, **kwargs):
    probability = jnp.where(jnp.asarray(switch), 0.9, 0.1)
    found = switch_alignment(probability, jnp.asarray(changes), jnp.asarray(VALID), **kwargs)
    return {name: float(value) for name, value in found.items()}


def test_perfect():
    first = CHANGES.copy()
    first[:, 0] = True  # first steps switch, and do not count
    assert align(first) == {
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "switches_per_episode": 1.0 + 3 / 2,
    }


def test_shifted_by_one_is_no_match():
    found = align(np.roll(CHANGES, 1, axis=1))
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)
    assert found["switches_per_episode"] == 2.5


def test_never():
    found = align(np.zeros_like(CHANGES))
    assert found == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "switches_per_episode": 1.0}


def test_always():
    found = align(np.ones_like(CHANGES))
    assert found["recall"] == 1.0
    assert found["precision"] == pytest.approx(3 / 12)  # 8 + 4 valid steps after the first
    assert found["f1"] == pytest.approx(2 * 3 / (12 + 3))
    assert found["switches_per_episode"] == 1.0 + 12 / 2


def test_f1_is_the_harmonic_mean():
    switch = np.zeros_like(CHANGES)
    switch[0, [3, 5]] = True
    switch[1, [2, 3, 4]] = True
    found = align(switch)
    precision, recall = 2 / 5, 2 / 3
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_first_step_and_padding_do_not_count():
    switch = np.zeros_like(CHANGES)
    switch[:, 0] = True
    changes = CHANGES.copy()
    changes[:, 0] = True
    switch[~VALID] = True
    changes[~VALID] = True
    found = align(switch, changes)
    assert found["precision"] == found["recall"] == 0.0
    assert found["switches_per_episode"] == 1.0


def test_threshold():
    assert align(CHANGES, threshold=0.95)["recall"] == 0.0
    assert align(CHANGES, threshold=0.05)["precision"] == pytest.approx(3 / 12)
    assert align(CHANGES, threshold=0.9)["recall"] == 1.0  # β ≥ threshold switches
