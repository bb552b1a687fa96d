"""Episodes whose every number is known, in the files of `data/` and in tests. NumPy alone: `data/make_data.py` runs where
our packages are not installed."""

import numpy as np

LENGTHS = (3, 5, 1, 4)
"""Steps of episodes 0, 1, 2, 3."""
TASKS = ("reach", "push")


def observations(episode, rows):
    """float32 [rows, 3]: every row of every episode is another, and exact as float32."""
    t = np.arange(rows)
    return np.stack([episode + t / 16, -t / 8, np.full(rows, episode % 2)], axis=1).astype("f4")


def actions(episode, rows):
    """float32 [rows, 2] within -0.5 to 0.5."""
    t = np.arange(rows)
    return np.stack([(episode + t) % 5 / 4 - 0.5, (t % 3 - 1) / 2], axis=1).astype("f4")


def rewards(episode, rows):
    """float32 [rows]."""
    return (np.arange(rows) + episode / 4).astype("f4")


def choices(episode, rows):
    """int64 [rows] of 0, 1, 2, 3."""
    return (episode + np.arange(rows)) % 4


def tokens(episode, rows):
    """int64 [rows] of 0 to 6."""
    return (2 * episode + np.arange(rows)) % 7


def episode(number, steps, labels=False):
    """Fields of an episode of vectors, with labels if wanted: goals 0 and 1, sub-goals, a task, rewards."""
    fields = {"obs": observations(number, steps + 1), "action": actions(number, steps)}
    if labels:
        t = np.arange(steps)
        fields |= {"goal": (number + t // 2) % 2, "subgoal": t // 2, "task": number % 3}
        fields["reward"] = rewards(number, steps)
    return fields
