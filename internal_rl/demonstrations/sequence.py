"""Episodes from anything that Python can index or iterate: lists, grain and Hugging Face data sets, Minari's, generators.

An item is an `Episode`, or a mapping or object that has

    observations or obs     [T+1, *O]
    actions or action       [T, *A]
    goal, subgoal           [T], optional
    task                    a number, optional
    rewards or reward       [T], optional
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import LABELS
from internal_rl.demonstrations.episode import Episode, check_labels, stored_episode
from internal_rl.demonstrations.flat import Flat
from internal_rl.demonstrations.recorded import Recorded, on_the_device, without_constants
from internal_rl.demonstrations.values import obs_statistics
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError

_NAMES = {
    "obs": ("observations", "obs"),
    "action": ("actions", "action"),
    "goal": ("goal",),
    "subgoal": ("subgoal",),
    "task": ("task",),
    "reward": ("rewards", "reward"),
}


@runtime_checkable
class Indexable(Protocol):
    """A data set of episodes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def episode_of(item: Any) -> Episode:
    """An item as an `Episode`.

    Raises:
        ValueError: it has no observations or no actions.
    """
    if isinstance(item, Episode):
        return item
    fields = {name: _field(item, names) for name, names in _NAMES.items()}
    for name in ("obs", "action"):
        if fields[name] is None:
            wanted = " or ".join(f"'{alternative}'" for alternative in _NAMES[name])
            has = f"; it has {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
            raise ValueError(f"a {type(item).__name__} without {wanted}{has}")
    return Episode(**fields)


def _field(item: Any, names: tuple[str, ...]) -> Any:
    """The first of these that the item has; tables have None where a row lacks something."""
    for name in names:
        found = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
        if found is not None:
            return found
    return None


def from_sequence(
    items: Indexable,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    horizon: int,
    packing: bool = False,
    num_goals: int | None = None,
) -> Recorded:
    """All episodes of a data set, on the device.

    Args:
        num_goals: the world's; None: as many as the labels name.

    Raises:
        UserError: there are none, or one does not fit; the line says which and how.
    """
    count = len(items)
    if count < 1:
        raise UserError("the data set has no episodes; allowed are 1 or more")
    if horizon < 1:
        raise UserError(f"horizon is {horizon}; allowed is 1 or more")
    parts: list[dict[str, np.ndarray]] = []
    labels: tuple[str, ...] = ()
    for i in range(count):
        try:
            episode = episode_of(items[i])
            labels = labels if parts else episode.labels
            check_labels(episode.labels, labels)
            parts.append(stored_episode(episode, obs_spec, action_spec))
        except ValueError as error:
            raise UserError(f"item {i}: {error}") from None
    columns = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("obs", "action", *LABELS)
        if name in parts[0]
    }
    lengths = [len(part["action"]) for part in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    goals = int(columns["goal"].max()) + 1 if "goal" in columns else 0
    if num_goals is not None and goals > num_goals:
        raise UserError(f"goals go up to {goals - 1}; the world's go up to {num_goals - 1}")
    statistics = obs_statistics(columns["obs"], obs_spec) if obs_spec.is_real else None
    settings = {
        "source": f"{count} episodes in memory",
        "digest": _digest({**columns, "starts": starts}),
        "horizon": horizon,
        "packing": packing,
        "obs_spec": obs_spec,
        "action_spec": action_spec,
        "num_goals": goals if num_goals is None else num_goals,
        "obs_statistics": statistics and without_constants(statistics),
    }
    return on_the_device(Flat(**columns, starts=starts), settings)


def _digest(columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, column in sorted(columns.items()):
        digest.update(f"{name} {column.dtype} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def write(
    items: Iterable[Any],
    path: str | Path,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    made_by: dict[str, Any] | None = None,
) -> Path:
    """Episodes of any iterable into a new folder, one at a time.

    Raises:
        UserError: as `Writer`, or an item is no episode.
    """
    with Writer(path, obs_spec, action_spec, made_by) as writer:
        for i, item in enumerate(items):
            try:
                episode = episode_of(item)
            except ValueError as error:
                raise UserError(f"episode {i}: {error}") from None
            writer.append(episode)
    return writer.path
