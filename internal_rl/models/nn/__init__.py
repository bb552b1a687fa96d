"""Sequence models on one contract (see `Stack`): parallel `__call__`, recurrent `step`, resets and
padding.

layers      dense, norms, MLP, weight-decay mask
scan        diagonal linear recurrence
attention   causal attention with T5 relative positions and a cache
hawk        Hawk's recurrent block (RG-LRU)
blocks      residual blocks, and stacks of them
gru         history encoder
embedder    non-causal sequence embedding
"""

from internal_rl.models.nn.attention import Attention, KVCache
from internal_rl.models.nn.blocks import Block, Stack, make_mixer
from internal_rl.models.nn.embedder import SequenceEmbedder
from internal_rl.models.nn.gru import GRUHistory
from internal_rl.models.nn.hawk import Hawk, HawkCarry
from internal_rl.models.nn.layers import MLP, LayerNorm, RMSNorm, decay_mask, dense, make_norm
from internal_rl.models.nn.scan import diagonal_scan

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "GRUHistory",
    "Hawk",
    "HawkCarry",
    "KVCache",
    "LayerNorm",
    "RMSNorm",
    "SequenceEmbedder",
    "Stack",
    "decay_mask",
    "dense",
    "diagonal_scan",
    "make_mixer",
    "make_norm",
]
