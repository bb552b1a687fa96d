"""Credit-assignment problems with exact ground truth (COCOA, arXiv 2306.16803)."""

from envs.credit.interleaving import Interleaving, InterleavingParams
from envs.credit.key_to_door import KeyToDoor, KeyToDoorParams
from envs.credit.mdp import Enumerable, FiniteMDP, Model, Outcome, enumerate_mdp
from envs.credit.tree import Tree

__all__ = [
    "Enumerable",
    "FiniteMDP",
    "Interleaving",
    "InterleavingParams",
    "KeyToDoor",
    "KeyToDoorParams",
    "Model",
    "Outcome",
    "Tree",
    "enumerate_mdp",
]
