"""Pinpad: visit coloured cells in the order of a hidden task (paper App. A).

tasks.py      task sets as data (Tables A1 and A2)
layout.py     uniform sampling of objects, walls and the agent
gridworld.py  `GridPinpad`, a gymnax environment
planning.py   shortest paths by dynamic programming
expert.py     the expert's policy and its trajectories
dataset.py    trajectories on disk, memory-mapped
render.py     pictures of states, GIFs of episodes with the switching gate under them
"""

from envs.pinpad.gridworld import GridPinpad, PinpadParams, PinpadState
from envs.pinpad.layout import Layout, sample_layouts
from envs.pinpad.tasks import POST_A1, POST_A2, TABLE_A1, TABLE_A2, Tasks, encode_tasks

__all__ = [
    "POST_A1",
    "POST_A2",
    "TABLE_A1",
    "TABLE_A2",
    "GridPinpad",
    "Layout",
    "PinpadParams",
    "PinpadState",
    "Tasks",
    "encode_tasks",
    "sample_layouts",
]
