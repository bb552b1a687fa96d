"""Oracle entropies against breadth-first search and enumeration over tasks, in plain Python."""

from collections import deque

import jax
import numpy as np

from envs.pinpad.expert import generate
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.oracle import _per_step, oracle_nll
from envs.pinpad.tasks import encode_tasks

GRID, HORIZON, COUNT = 3, 9, 48
SEQUENCES = ("01", "10", "02", "121")
ENV, TASKS = GridPinpad(grid_size=GRID, num_objects=3, num_walls=1), encode_tasks(SEQUENCES, 3)
OFFSETS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def move(cell, action, walls):
    row, column = divmod(cell, GRID)
    row, column = row + OFFSETS[action][0], column + OFFSETS[action][1]
    if not (0 <= row < GRID and 0 <= column < GRID) or row * GRID + column in walls:
        return cell
    return row * GRID + column


def steps_to(goal, start, objects, walls):
    """Moves until the goal's colour is entered around other colours; None if impossible."""
    queue, seen = deque([(start, 0)]), {start}
    while queue:
        cell, distance = queue.popleft()
        for action in range(4):
            there = move(cell, action, walls)
            if there == cell:
                continue
            if there == objects[goal]:
                return distance + 1
            if there not in seen and there not in objects:
                seen.add(there)
                queue.append((there, distance + 1))
    return None


def probability(action, cell, goal, objects, walls):
    """Of an action of the expert that ties uniformly."""
    after = []
    for a in range(4):
        there = move(cell, a, walls)
        wrong = there in objects and there != objects[goal] and there != cell
        if there == cell or wrong:
            after.append(None)
        elif there == objects[goal]:
            after.append(0)
        else:
            after.append(steps_to(goal, there, objects, walls))
    best = min(x for x in after if x is not None)
    optimal = [a for a in range(4) if after[a] == best]
    return (action in optimal) / len(optimal)


def solution_length(task, cell, objects, walls):
    total = 0
    for colour in task:
        steps = steps_to(colour, cell, objects, walls)
        if steps is None:
            return None
        total, cell = total + steps, objects[colour]
    return total


def enumerate_tasks(agent, actions, own, objects, walls):
    """−log p(a_t | task) and −log p(a_t | past), by weighing all tasks after every step."""
    tasks = [[int(c) for c in sequence] for sequence in SEQUENCES]
    weights = []
    for task in tasks:
        length = solution_length(task, agent[0], objects, walls)
        weights.append(1.0 if length is not None and length <= HORIZON else 0.0)
    progress = [0] * len(tasks)
    expert, bayes = [], []
    for t, action in enumerate(actions):
        likelihood = []
        for task, done, weight in zip(tasks, progress, weights, strict=True):
            # A task that is over, or that the past rules out, does not go on.
            alive = weight > 0 and done < len(task)
            likelihood.append(
                probability(action, agent[t], task[done], objects, walls) if alive else 0.0
            )
        expert.append(-np.log(likelihood[own]))
        before = sum(weights)
        weights = [w * p for w, p in zip(weights, likelihood, strict=True)]
        bayes.append(-np.log(sum(weights) / before))
        for i, task in enumerate(tasks):
            if progress[i] < len(task) and agent[t + 1] == objects[task[progress[i]]]:
                progress[i] += agent[t + 1] != agent[t]
    return expert, bayes


def test_against_enumeration():
    @jax.jit
    def run(key):
        data, _ = generate(key, ENV, TASKS, COUNT, HORIZON)
        per_step = _per_step(ENV, TASKS, HORIZON, data, 0.0)
        return data, per_step, oracle_nll(key, ENV, TASKS, HORIZON, COUNT)

    data, (expert, bayes, valid), total = jax.device_get(run(jax.random.key(0)))
    all_expert, all_bayes, ties, informed = [], [], 0, 0
    for i in range(COUNT):
        length = int(data.length[i])
        assert valid[i].sum() == length
        own_expert, own_bayes = enumerate_tasks(
            data.agent[i].tolist(),
            data.action[i, :length].tolist(),
            int(data.task[i]),
            data.objects[i].tolist(),
            set(data.walls[i].tolist()),
        )
        np.testing.assert_allclose(expert[i, :length], own_expert, atol=1e-5)
        np.testing.assert_allclose(bayes[i, :length], own_bayes, atol=1e-5)
        all_expert += own_expert
        all_bayes += own_bayes
        ties += sum(x > 1e-6 for x in own_expert)
        informed += abs(own_bayes[0] - own_bayes[-1]) > 1e-6
    assert ties > 0
    assert informed > 0
    np.testing.assert_allclose(total["expert"], np.mean(all_expert), rtol=1e-4)
    np.testing.assert_allclose(total["bayes"], np.mean(all_bayes), rtol=1e-4)
    np.testing.assert_allclose(total["length"], data.length.mean(), rtol=1e-5)
    # Who has to find the task out pays more than who knows it, by at most ln(tasks) in all.
    gap = (np.mean(all_bayes) - np.mean(all_expert)) * data.length.mean()
    assert 0 < gap < np.log(len(SEQUENCES))
