"""Pinpad: visit coloured cells in the order of a hidden task (paper App. A).

tables.py     task sets of the paper (Tables A1 and A2)
tasks.py      task sets as arrays
layout.py     uniform sampling of objects, walls and the agent
gridworld.py  `GridPinpad`, a gymnax environment
world.py      it as a `World`, with one task set
planning.py   shortest paths by dynamic programming
expert.py     the expert's policy and its trajectories
render.py     pictures of states, GIFs of episodes with the switching gate under them
"""
