"""Layout sampling: distinct cells, and exactly uniform."""

from collections import Counter
from itertools import product
from math import perm

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from envs.pinpad import layout
from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.tasks import encode_tasks

mixed_radix = jax.jit(layout.mixed_radix, static_argnames="radices")
sample_layouts = jax.jit(layout.sample_layouts, static_argnums=(1, 2, 3, 4))


def stacked(sample: layout.Layout) -> np.ndarray:
    return np.concatenate([sample.objects, sample.walls, sample.agent[:, None]], axis=1)


@pytest.mark.parametrize(("size", "objects", "walls"), [(4, 4, 1), (7, 8, 4), (2, 2, 1), (3, 2, 0)])
def test_cells_are_distinct_and_inside(size, objects, walls):
    cells = stacked(sample_layouts(jax.random.key(0), 500, size, objects, walls))
    assert cells.shape == (500, objects + walls + 1)
    assert cells.min() >= 0
    assert cells.max() < size**2
    assert all(len(set(row)) == len(row) for row in cells.tolist())


def test_every_list_of_ranks_is_another_layout():
    """So uniform ranks give uniform layouts, whatever the number of samples."""
    ranks = np.array(list(product(range(5), range(4), range(3), range(2))), np.int32)
    decode = jax.jit(layout.layout_from_ranks, static_argnames="num_objects")
    sample = decode([jnp.asarray(column) for column in ranks.T], num_objects=2)
    found = set(map(tuple, stacked(sample).tolist()))
    assert len(ranks) == len(found) == perm(5, 4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_mixed_radix_digits(first, second):
    radices = (16, 49, 48, 47, 46, 45)
    assert layout.num_words(radices) == 2  # 16 * 49 * 48 and 47 * 46 * 45 are below 2^17
    digits = mixed_radix(jnp.array([first, second], jnp.uint32), radices)
    rest = [first, first // 16, first // 16 // 49, second, second // 47, second // 47 // 46]
    expected = [value % radix for value, radix in zip(rest, radices, strict=True)]
    assert [int(digit) for digit in digits] == expected


def chi_square(outcomes: Counter, total: int, categories: int) -> float:
    counts = np.zeros(categories)
    counts[: len(outcomes)] = list(outcomes.values())
    assert len(outcomes) <= categories
    return chisquare(counts, np.full(categories, total / categories)).pvalue


def test_sample_layouts_is_uniform():
    cells = stacked(sample_layouts(jax.random.key(1), 60_000, 2, 1, 1))
    outcomes = Counter(map(tuple, cells.tolist()))
    assert chi_square(outcomes, 60_000, perm(4, 3)) > 1e-3


def test_reset_is_uniform_over_layouts_and_tasks():
    env = GridPinpad(2, 1, 1)
    params = PinpadParams(encode_tasks(("0", "00", "000"), 1))
    keys = jax.random.split(jax.random.key(2), 60_000)
    _, state = jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, params)
    cells = np.concatenate([stacked(state.layout), state.task[:, None]], axis=1)
    outcomes = Counter(map(tuple, cells.tolist()))
    assert chi_square(outcomes, 60_000, 3 * perm(4, 3)) > 1e-3


@pytest.mark.parametrize("pair", [(0, 12), (7, 8), (11, 12)])
def test_pairs_of_things_are_uniform_on_the_papers_grid(pair):
    cells = stacked(sample_layouts(jax.random.key(3), 50_000, 7, 8, 4))[:, pair]
    outcomes = Counter(map(tuple, cells.tolist()))
    assert chi_square(outcomes, 50_000, perm(49, 2)) > 1e-3


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_symmetries_are_those_of_the_square(size):
    """Eight different maps that keep neighbours neighbours, the first of them doing nothing."""
    cells = np.arange(size**2)
    move = jax.jit(layout.apply_symmetry, static_argnums=2)
    moved = np.asarray(move(jnp.asarray(cells)[None], jnp.arange(8)[:, None], size))
    np.testing.assert_array_equal(moved[0], cells)
    np.testing.assert_array_equal(np.sort(moved, axis=1), np.tile(cells, (8, 1)))
    # On one cell they are one map, on four cells (they move the corners) and more they are eight.
    assert len(np.unique(moved, axis=0)) == (1 if size == 1 else 8)

    def distance(a):
        row, column = np.divmod(a, size)
        return np.abs(row[:, None] - row) + np.abs(column[:, None] - column)

    for image in moved:
        np.testing.assert_array_equal(distance(image), distance(cells))
