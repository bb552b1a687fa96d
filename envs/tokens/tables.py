"""Chunks of the language and task sets, one digit per chunk."""

from collections.abc import Collection
from itertools import pairwise, product

from envs.tokens.language import Chunk, stuttered

CHUNKS = tuple(
    Chunk(name, stuttered(order))
    for name, order in (
        *(("forth", "012"), ("back", "210"), ("fall", "320")),
        *(("skip", "013"), ("hook", "231"), ("zig", "302")),
        *(("swap", "103"), ("zag", "130")),
    )
)
"""Eight orders of three out of four positions, each but the last of which may be said twice: 3 to 5 tokens, 4 on average.

Chunks 0 and 3, 1 and 4, 2 and 5, 6 and 7 begin alike. "forth" and "skip" part at their last token only, so until then a
code of the chunk is needed. Their order matters: the token that decides at a transition of `POST_FOUR` is open in more
than half of the chunk's occurrences in `FOUR`. Where the text so far tells what follows, no controller learns to decide.
"""


def orders(num_chunks: int, length: int, unseen: Collection[str] = ()) -> tuple[str, ...]:
    """All tasks of `length` of the first `num_chunks` chunks in which neither a chunk follows itself nor a pair of
    `unseen`, such as "01", occurs."""
    sequences = ("".join(task) for task in product("0123456789"[:num_chunks], repeat=length))
    return tuple(
        task for task in sequences if all(a != b and a + b not in unseen for a, b in pairwise(task))
    )


POST_FOUR = ("0123",)
"""Post-training task of the first four chunks."""

FOUR = orders(4, 4, unseen=("01", "12", "23"))
"""Pretraining tasks of the first four chunks: all 45 of four chunks without a transition of `POST_FOUR`."""
