"""One demonstration, and its fields as they lie on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import OPTIONAL, field_dtype
from internal_rl.demonstrations.values import Fault, label_fault, not_finite, stored


@dataclass(frozen=True, eq=False)
class Episode:
    """One demonstration: T actions, and the T + 1 observations around them. Arrays, or whatever NumPy makes arrays of."""

    obs: Any
    """[T+1, *O]; the last row is what the last action led to."""
    action: Any
    """[T, *A]."""
    goal: Any = None
    """[T] int, the true active sub-goal; -1 where unknown."""
    subgoal: Any = None
    """[T] int, its index in the task; -1 where unknown."""
    task: Any = None
    """int, the task that the episode follows; -1 if unknown."""
    reward: Any = None
    """[T] float."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Optional fields that it has."""
        return tuple(name for name in OPTIONAL if getattr(self, name) is not None)


def stored_episode(
    episode: Episode, obs_spec: ObservationSpec, action_spec: ActionSpec
) -> dict[str, np.ndarray]:
    """Its fields as they lie on disk, `task` as [1].

    Raises:
        ValueError: something about it is wrong; one line that names field, value and what is allowed.
    """
    arrays = {}
    specs = {"obs": obs_spec, "action": action_spec}
    for name in ("action", "obs"):
        try:
            arrays[name], wrong = stored(getattr(episode, name), specs[name])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        _refuse(name, wrong)
    steps = len(arrays["action"])
    if steps == 0:
        raise ValueError("action has no rows; allowed are 1 or more")
    if len(arrays["obs"]) != steps + 1:
        raise ValueError(
            f"obs has {len(arrays['obs'])} rows and action {steps}; allowed is one row more of obs"
        )
    for name in episode.labels:
        values = np.asarray(getattr(episode, name))
        values = values.reshape(1) if name == "task" and values.ndim == 0 else values
        if values.shape != (1 if name == "task" else steps,):
            allowed = "()" if name == "task" else f"({steps},)"
            raise ValueError(f"{name} has shape {values.shape}; allowed is {allowed}")
        kinds = "fiub" if name == "reward" else "iu"
        if values.dtype.kind not in kinds:
            raise ValueError(
                f"{name} has dtype {values.dtype}; allowed are "
                + ("real numbers" if name == "reward" else "integers")
            )
        _refuse(name, not_finite(values) if name == "reward" else label_fault(values))
        arrays[name] = values.astype(field_dtype(name, obs_spec, action_spec))
    return arrays


def _refuse(name: str, wrong: Fault | None) -> None:
    if wrong:
        raise ValueError(f"{name}, row {wrong.row}: {wrong.text}")


def check_labels(labels: Iterable[str], first: Iterable[str]) -> None:
    """Raise ValueError if an episode has other optional fields than the first one."""
    if set(labels) != set(first):
        raise ValueError(
            f"optional fields are {', '.join(labels) or 'none'}; allowed are those of the first episode: "
            f"{', '.join(first) or 'none'}"
        )
