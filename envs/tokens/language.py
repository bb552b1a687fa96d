"""The language: chunks of several tokens, spelled from the symbols that stand in the prompt of each episode.

A chunk is a sub-routine over *positions* of the prompt, not over symbols: with the prompt "g b k" the spelling "021"
reads "g k b". So one chunk looks different in every episode, and what names it must be understood from the context;
renaming the symbols of a whole episode changes nothing else (`TokenWorld.view`). A chunk may have several spellings,
between which the expert draws at every token.

No spelling begins another one, of whichever chunk. Therefore every text can be read in one way only and needs no
separators: a chunk is over when a spelling is complete. Which chunk it is may stay open until its last token, though.

Letters: C chunks, N nodes of the grammar, k positions of the prompt, S symbols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from jaxtyping import Bool, Float, Int

MOST_CHUNKS = 10
MOST_POSITIONS = 10
MOST_SYMBOLS = 26
"""A digit names a chunk or a position, a letter of the alphabet a symbol."""


@dataclass(frozen=True)
class Chunk:
    """A sub-routine.

    Args:
        name: for people.
        spellings: positions of the prompt in the order in which they are said, one digit each.
    """

    name: str
    spellings: tuple[str, ...]


def stuttered(order: str) -> tuple[str, ...]:
    """Spellings of an order of positions in which each one but the last may be said twice: "01" → "01", "001"."""
    return tuple("".join(said) + order[-1] for said in product(*((p, p + p) for p in order[:-1])))


@dataclass(frozen=True)
class Language:
    """Chunks and the alphabet.

    Tokens are symbols 0..S-1 and the pause S, which says nothing. The prompt is `prompt_length` = k different symbols.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    chunks: tuple[Chunk, ...]
    prompt_length: int = 4
    symbols: int = 12

    def __post_init__(self) -> None:
        _check(self)

    @property
    def pause(self) -> int:
        """The token that says nothing."""
        return self.symbols

    @property
    def num_tokens(self) -> int:
        """S + 1."""
        return self.symbols + 1

    @property
    def grammar(self) -> "Grammar":
        """The chunks as tables, made once."""
        return _grammar(self)

    def longest(self, task: str) -> int:
        """Tokens of the longest text of a task, without its prompt."""
        return sum(max(map(len, self.chunks[int(chunk)].spellings)) for chunk in task)


@dataclass(frozen=True, eq=False)
class Grammar:
    """All spellings of all chunks as one tree: a node stands for what has been said of the chunk under way.

    Attributes:
        child: node after saying the prompt's symbol at a position; 0, the root, where that completes a spelling or
            belongs to none.
        complete: saying that position completes a spelling.
        allowed: chunk c can still become what has been said, this position included.
        choice: the expert's distribution over positions within chunk c: uniform over those allowed; zeros where none is.
    """

    child: Int[np.ndarray, "N k"]
    complete: Bool[np.ndarray, "N k"]
    allowed: Bool[np.ndarray, "C N k"]
    choice: Float[np.ndarray, "C N k"]


@lru_cache(maxsize=64)
def _grammar(language: Language) -> Grammar:
    spelled = [(c, s) for c, chunk in enumerate(language.chunks) for s in chunk.spellings]
    said = sorted({s[:i] for _, s in spelled for i in range(len(s))}, key=lambda s: (len(s), s))
    node = {prefix: i for i, prefix in enumerate(said)}
    shape = (len(said), language.prompt_length)
    child, complete = np.zeros(shape, np.int32), np.zeros(shape, bool)
    allowed = np.zeros((len(language.chunks), *shape), bool)
    for chunk, spelling in spelled:
        for i, position in enumerate(map(int, spelling)):
            here = node[spelling[:i]], position
            child[here] = node.get(spelling[: i + 1], 0)
            complete[here] = i + 1 == len(spelling)
            allowed[(chunk, *here)] = True
    ways = np.maximum(allowed.sum(axis=-1, keepdims=True), 1)
    return Grammar(child, complete, allowed, (allowed / ways).astype(np.float32))


def encode_tasks(
    tasks: Sequence[str], num_chunks: int
) -> tuple[Int[np.ndarray, "tasks K"], Int[np.ndarray, " tasks"]]:
    """Tasks such as "032", one digit per chunk, as sequences padded with -1, and their lengths.

    Raises:
        ValueError: no task, an empty one, or a character that is no chunk.
    """
    if isinstance(tasks, str) or not tasks:
        raise ValueError(f"sequences={tasks!r}: allowed are one or more tasks, such as ('032',)")
    for task in tasks:
        known = all(c in "0123456789" and int(c) < num_chunks for c in task)
        if not task or not known:
            raise ValueError(
                f"sequences contain {task!r}: allowed are digits 0 to {num_chunks - 1}, one per chunk"
            )
    lengths = np.array([len(task) for task in tasks], np.int32)
    sequences = np.full((len(tasks), lengths.max()), -1, np.int32)
    for row, task in zip(sequences, tasks, strict=True):
        row[: len(task)] = [int(chunk) for chunk in task]
    return sequences, lengths


def _check(language: Language) -> None:
    positions, symbols = language.prompt_length, language.symbols
    if not 1 <= positions <= MOST_POSITIONS:
        raise ValueError(f"prompt_length={positions}: allowed is 1 to {MOST_POSITIONS}")
    if not max(2, positions) <= symbols <= MOST_SYMBOLS:
        raise ValueError(
            f"symbols={symbols}: allowed is {max(2, positions)} to {MOST_SYMBOLS}, since those of a prompt differ"
        )
    if not 1 <= len(language.chunks) <= MOST_CHUNKS:
        raise ValueError(f"chunks: {len(language.chunks)} given; allowed is 1 to {MOST_CHUNKS}")
    digits = "0123456789"[:positions]
    for chunk in language.chunks:
        if not chunk.spellings:
            raise ValueError(f"chunks: {chunk.name!r} has no spellings; allowed is 1 or more")
        for spelling in chunk.spellings:
            if not spelling or not set(spelling) <= set(digits):
                raise ValueError(
                    f"chunks: spelling {spelling!r} of {chunk.name!r}; allowed are digits 0 to {positions - 1}"
                )
    _check_prefix_free(language)


def _check_prefix_free(language: Language) -> None:
    # Among sorted strings, one that begins another one begins its successor, too.
    spelled = sorted((s, chunk.name) for chunk in language.chunks for s in chunk.spellings)
    for (first, name), (second, other) in pairwise(spelled):
        if second.startswith(first):
            raise ValueError(
                f"chunks: spelling {first!r} of {name!r} begins {second!r} of {other!r}; allowed are spellings of which"
                " none begins another"
            )
