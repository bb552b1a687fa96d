"""A user's own episodes: any iterable, or a function without arguments that makes one, in a file of theirs."""

from collections.abc import Iterable
from pathlib import Path

from agents import references
from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.sequence import write
from internal_rl.errors import UserError


def import_reference(
    source: str, target: str | Path, *, obs_spec: ObservationSpec, action_spec: ActionSpec
) -> Path:
    """Write the episodes of `source`, `path/to/file.py:NAME`, into the folder `target`.

    Args:
        source: names an iterable of episodes (see `sequence` for what an episode is), or a function without arguments
            that returns one; a generator, for instance.
        obs_spec, action_spec: what one observation and one action are; the world's.

    Raises:
        UserError: there is no such thing, the user's code raised something, or an episode does not fit.
    """
    try:
        found = references.load(source)
        with references.blaming(source):
            items = found() if callable(found) else found
            if not isinstance(items, Iterable):
                raise UserError(
                    f"{source} is a {type(items).__name__}; allowed: an iterable of episodes, or a function that returns "
                    "one"
                )
            made_by = {
                "by": "import_reference",
                "source": source,
                "source_sha256": references.fingerprint(source),
            }
            return write(items, target, obs_spec, action_spec, made_by)
    except ValueError as error:
        raise UserError(str(error)) from None
