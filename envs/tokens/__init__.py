"""A token world: a small language whose texts are sub-routines called in the order of a hidden task.

language.py  chunks, how they are spelled from the symbols of a prompt, and the grammar as tables
tables.py    chunks and task sets
world.py     `TokenWorld`, a `World`: the text so far, and a verifier that pays for the whole task only
expert.py    the expert's policy and its texts
oracle.py    entropies that bound every predictor of the expert
render.py    pictures of texts
"""
