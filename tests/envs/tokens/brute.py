"""The language in plain Python, by trying all spellings on whole strings; knows nothing of nodes and steps."""

from itertools import product

TINY = (("01", "001"), ("10", "110"))
"""Spellings of two chunks over two positions; no prompt gives one another's text."""


def spelled(chunks, task):
    """All texts of a task as strings of positions, with the number of tokens of each chunk."""
    for parts in product(*(chunks[int(c)] for c in task)):
        yield "".join(parts), [len(part) for part in parts]


def judge(chunks, prompt, task, written, pause):
    """(success, wrong, chunks completed before the first wrong token) of the tokens written after the prompt."""
    said = [token for token in written if token != pause]
    letters = "".join(str(prompt.index(x)) if x in prompt else "?" for x in said)
    texts = list(spelled(chunks, task))
    right = max(_common(letters, text) for text, _ in texts)
    progress = max(
        sum(sum(parts[: i + 1]) <= right for i in range(len(parts)))
        for text, parts in texts
        if _common(letters, text) == right
    )
    success = any(text == letters[: len(text)] for text, _ in texts)
    return success, right < len(letters) and not success, progress


def probability(chunks, task, letters, position):
    """That the expert says `position` after `letters`, by the definition: uniform over what can complete its chunk."""
    over = {letters}
    for chunk in task:
        rest = {x[len(s) :] for x in over for s in chunks[int(chunk)] if x.startswith(s)}
        if not rest:
            begun = next(iter(over))
            nexts = {s[len(begun)] for s in chunks[int(chunk)] if s.startswith(begun)}
            return (position in nexts) / max(len(nexts), 1)
        over = rest
    return 0.0


def _common(a, b):
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
