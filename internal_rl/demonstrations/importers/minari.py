"""Minari's data sets. Their episodes have T + 1 observations and T actions, as ours."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.importers.common import bounded, clipped, extra, names
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError


def import_minari(
    source: str | Path,
    target: str | Path,
    *,
    key: str | Iterable[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    clip: bool = False,
) -> Path:
    """Write the episodes of a Minari data set into the folder `target`, with their rewards.

    Args:
        source: a folder, or the id of a data set on this machine; nothing is downloaded.
        key: which entry of observations that are dictionaries; several, with commas between, are concatenated.
        low, high: bounds of real-valued actions; None: the widest of the action space, or, where that is unbounded, of
            the recorded actions.
        clip: clip actions to the bounds.

    Raises:
        UserError: there is no such data set, its spaces are not vectors or choices, or an episode does not fit.
    """
    data = _opened(str(source))
    keys = None if key is None else names(key)
    obs_space = _observed(data.observation_space, keys)
    shift = [int(getattr(space, "start", 0)) for space in obs_space]
    obs_spec = _obs_spec(obs_space, keys)
    action_space = data.action_space
    spec = _action_spec(data, low, high)
    made_by = {
        "by": "import_minari",
        "source": data.spec.dataset_id,
        "minari_version": data.spec.minari_version,
    }
    with Writer(target, obs_spec, spec, made_by) as writer:
        for episode in data.iterate_episodes():
            parts = _observed(episode.observations, keys)
            if obs_spec.num_tokens:
                obs = np.asarray(parts[0]) - shift[0]
            else:
                obs = np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)
            action = np.asarray(episode.actions)
            if spec.num_actions:
                action = action - int(action_space.start)
            action = clipped(action, spec, clip)
            writer.append(Episode(obs, action, reward=episode.rewards))
    return writer.path


def _opened(source: str) -> Any:
    minari = extra("minari")
    try:
        if Path(source).is_dir():
            inner = Path(source) / "data"
            return minari.MinariDataset(inner if inner.is_dir() else Path(source))
        return minari.load_dataset(source, download=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(
            f"no Minari data set '{source}': {str(error).strip()}; allowed: a folder, or the id of one on this machine"
        ) from None
    except ImportError as error:  # of the library that its files need
        raise UserError(f"'{source}': {error}; install the extra `data`") from None


def _observed(value: Any, keys: tuple[str, ...] | None) -> list[Any]:
    """The parts of a dictionary (of spaces, or of arrays) that are asked for, or all of what is none."""
    inner = getattr(value, "spaces", value)
    if not isinstance(inner, dict):
        if keys is not None:
            raise UserError(
                f"key is {', '.join(keys)}; allowed where observations have no keys: None"
            )
        return [value]
    has = ", ".join(inner)
    if keys is None:
        raise UserError(f"observations are dictionaries with {has}; choose with key")
    for key in keys:
        if key not in inner:
            raise UserError(f"key is '{key}'; allowed: {has}")
    return [inner[key] for key in keys]


def _obs_spec(spaces: list[Any], keys: tuple[str, ...] | None) -> ObservationSpec:
    where = [f"observations['{key}']" for key in keys] if keys else ["observations"]
    if len(spaces) == 1 and type(spaces[0]).__name__ == "Discrete":
        return ObservationSpec(num_tokens=int(spaces[0].n))
    for name, space in zip(where, spaces, strict=True):
        if type(space).__name__ != "Box" or len(space.shape) != 1:
            raise UserError(f"{name} are {space}; allowed: a vector (Box) or one choice (Discrete)")
    return ObservationSpec(dim=sum(space.shape[0] for space in spaces))


def _action_spec(data: Any, low: float | None, high: float | None) -> ActionSpec:
    space = data.action_space
    if type(space).__name__ == "Discrete":
        return ActionSpec(num_actions=int(space.n))
    if type(space).__name__ != "Box" or len(space.shape) != 1:
        raise UserError(f"actions are {space}; allowed: a vector (Box) or one choice (Discrete)")
    least, most = float(space.low.min()), float(space.high.max())
    if (low is None and not np.isfinite(least)) or (high is None and not np.isfinite(most)):
        least, most = np.inf, -np.inf
        for episode in data.iterate_episodes():
            least = min(least, float(np.min(episode.actions)))
            most = max(most, float(np.max(episode.actions)))
    return bounded(space.shape[0], low, high, least, most)
