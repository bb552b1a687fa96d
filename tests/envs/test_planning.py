"""Dynamic programming against breadth-first search."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.pinpad import planning
from envs.pinpad.layout import Layout
from envs.pinpad.tasks import encode_tasks
from tests.envs import oracle

plan = jax.jit(planning.plan, static_argnames="grid_size")
SETTINGS = ((4, 4, 1), (3, 3, 3), (2, 2, 1), (7, 8, 4), (5, 3, 12), (4, 3, 0))


def layouts(seed: int, n: int, size: int, objects: int, walls: int):
    rng = np.random.default_rng(seed)
    samples = [oracle.random_layout(rng, size, objects, walls) for _ in range(n)]
    arrays = (jnp.array(x, jnp.int32) for x in zip(*samples, strict=True))
    return samples, Layout(*arrays)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SETTINGS))
def test_distances_and_moves_match_breadth_first_search(seed, setting):
    size = setting[0]
    samples, layout = layouts(seed, 2, *setting)
    result = jax.device_get(plan(layout, size))
    for b, (objects, walls, _) in enumerate(samples):
        for cell in set(range(size**2)) - set(walls):
            for colour in range(setting[1]):
                steps = oracle.distance(cell, colour, size, objects, walls)
                if steps == oracle.INFINITY:
                    steps = planning.UNREACHABLE
                assert result.distances[b, colour, cell] == steps
                moves = int(result.moves[b, colour, cell])
                after = [oracle.destination(cell, a, size, walls) for a in range(4)]
                assert bits(moves, planning.OPTIMAL) == oracle.optimal_actions(
                    cell, colour, size, objects, walls
                )
                wrong = set(objects) - {objects[colour]}
                enters = [a for a in range(4) if after[a] == objects[colour] != cell]
                assert bits(moves, planning.ENTERS) == enters
                assert bits(moves, planning.MOVES) == [a for a in range(4) if after[a] != cell]
                safe = [a for a in range(4) if after[a] == cell or after[a] not in wrong]
                assert bits(moves, planning.SAFE) == safe


def bits(moves: int, first: int) -> list[int]:
    return [a for a in range(4) if moves >> (first + a) & 1]


def test_walls_are_unreachable():
    _, layout = layouts(0, 8, 5, 3, 12)
    distances = plan(layout, 5).distances
    on_walls = jnp.take_along_axis(distances, layout.walls[:, None], axis=-1)
    assert (on_walls == planning.UNREACHABLE).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_task_length_is_the_shortest_solution(seed):
    tasks = ("032", "2112", "00", "3")
    samples, layout = layouts(seed, 8, 4, 4, 3)
    ids = np.arange(8, dtype=np.int32) % 4
    lengths = task_length(layout, encode_tasks(tasks, 4), ids)
    for b, (objects, walls, agent) in enumerate(samples):
        expected = oracle.solution_length(tasks[ids[b]], 4, objects, walls, agent)
        if expected == oracle.INFINITY:
            expected = planning.UNREACHABLE
        assert lengths[b] == expected


@jax.jit
def task_length(layout, tasks, ids):
    return planning.task_length(planning.distances(layout, 4), layout, tasks, ids)


def test_any_leading_shape_and_vmap_agree():
    _, layout = layouts(1, 6, 4, 4, 1)
    expected = plan(layout, 4)
    folded = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), layout)
    reshaped = jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), plan(folded, 4))
    mapped = jax.jit(jax.vmap(partial(planning.plan, grid_size=4)))(layout)
    for other in (reshaped, mapped):
        jax.tree.map(np.testing.assert_array_equal, expected, other)


def test_longest_path_of_a_serpentine_maze_is_found():
    """More rounds than the grid is wide: walls force a detour through every row."""
    size = 7
    walls = [row * size + column for row in (1, 3, 5) for column in range(size)]
    for row, gap in ((1, 6), (3, 0), (5, 6)):
        walls.remove(row * size + gap)
    layout = Layout(jnp.array([[42]]), jnp.array([walls]), jnp.array([0]))
    expected = oracle.distance(0, 0, size, [42], walls)
    assert plan(layout, size).distances[0, 0, 0] == expected == 30


def test_grids_wider_than_a_word_are_refused():
    layout = Layout(jnp.array([1]), jnp.zeros(0, jnp.int32), jnp.array(0))
    with pytest.raises(ValueError, match="grid_size=33: allowed is at most 32"):
        planning.plan(layout, 33)


def test_grid_of_the_largest_size():
    layout = Layout(jnp.array([32 * 32 - 1]), jnp.zeros(0, jnp.int32), jnp.array(0))
    distances = plan(layout, 32).distances[0]
    assert distances[0] == 62
    assert distances[31] == 31
