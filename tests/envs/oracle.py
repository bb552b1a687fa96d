"""Gridworld-pinpad again, in plain Python and from the paper's text, as an oracle for the tests."""

from collections import deque
from dataclasses import dataclass

import numpy as np

INFINITY = 10**9
DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def random_layout(rng: np.random.Generator, size: int, objects: int, walls: int):
    """(objects, walls, agent) on distinct cells."""
    cells = rng.permutation(size * size)[: objects + walls + 1].tolist()
    return cells[:objects], cells[objects:-1], cells[-1]


def destination(cell: int, action: int, size: int, walls: list[int]) -> int:
    row, column = cell // size + DIRECTIONS[action][0], cell % size + DIRECTIONS[action][1]
    inside = 0 <= row < size and 0 <= column < size
    return row * size + column if inside and row * size + column not in walls else cell


@dataclass
class Episode:
    """One episode that is stepped in place."""

    size: int
    objects: list[int]
    walls: list[int]
    agent: int
    task: str
    horizon: int
    progress: int = 0
    time: int = 0

    def step(self, action: int) -> tuple[float, bool, bool]:
        """(reward, terminated, truncated)"""
        self.time += 1
        truncated = self.time >= self.horizon
        cell = destination(self.agent, action, self.size, self.walls)
        moved, self.agent = cell != self.agent, cell
        if not moved or cell not in self.objects:
            return 0.0, False, truncated
        if self.objects.index(cell) != int(self.task[self.progress]):
            return 0.0, True, truncated
        self.progress += 1
        solved = self.progress == len(self.task)
        return float(solved), solved, truncated


def distance(start: int, colour: int, size: int, objects: list[int], walls: list[int]) -> int:
    """Steps to enter a colour by breadth-first search; INFINITY if it cannot be reached."""
    queue, seen = deque([(start, 0)]), {start}
    while queue:
        cell, steps = queue.popleft()
        for action in range(4):
            following = destination(cell, action, size, walls)
            if following == cell:
                continue
            if following == objects[colour]:
                return steps + 1
            if following not in objects and following not in seen:
                seen.add(following)
                queue.append((following, steps + 1))
    return INFINITY


def solution_length(task: str, size: int, objects: list[int], walls: list[int], agent: int) -> int:
    """Moves of the shortest solution by breadth-first search over (cell, progress)."""
    queue, seen = deque([(agent, 0, 0)]), {(agent, 0)}
    while queue:
        cell, progress, steps = queue.popleft()
        for action in range(4):
            following = destination(cell, action, size, walls)
            if following == cell:
                continue
            after = progress
            if following in objects:
                if objects.index(following) != int(task[progress]):
                    continue
                after = progress + 1
                if after == len(task):
                    return steps + 1
            if (following, after) not in seen:
                seen.add((following, after))
                queue.append((following, after, steps + 1))
    return INFINITY


def optimal_actions(
    cell: int, colour: int, size: int, objects: list[int], walls: list[int]
) -> list[int]:
    """Actions that start a shortest path to the colour."""
    best, found = distance(cell, colour, size, objects, walls), []
    for action in range(4):
        following = destination(cell, action, size, walls)
        if following == cell:
            continue
        if following == objects[colour]:
            steps = 1
        elif following in objects:
            continue
        else:
            steps = 1 + distance(following, colour, size, objects, walls)
        if steps == best < INFINITY:
            found.append(action)
    return found


def observe(kind: str, size: int, objects: list[int], walls: list[int], agent: int) -> np.ndarray:
    """Observation, bit by bit."""
    bits: list[int] = []
    if kind == "onehot":
        for cell in [*objects, *walls, agent]:
            bits += [int(cell == i) for i in range(size * size)]
        return np.array(bits, np.float32)
    for cell in [*objects, *walls]:
        for difference in (cell // size - agent // size, cell % size - agent % size):
            bits += [int(difference == d) for d in range(-size + 1, size)]
    if kind == "offsets":
        return np.array(bits, np.float32)
    for coordinate in (agent // size, agent % size):
        bits += [int(coordinate == i) for i in range(size)]
    return np.array(bits, np.float32)
