"""OGBench's .npz files: flat `observations` [N, O], `actions` [N, A] and `terminals` [N].

In a file, an episode of T + 1 observations has T + 1 actions, of which the last one leads nowhere, and `terminals` marks
its last row (so in `ogbench.utils.load_dataset`). That last action is dropped. If the file has `next_observations`, every
row is a transition, and the last one of them is the episode's last observation.
"""

from pathlib import Path
from typing import Any

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.importers.common import bounded, clipped
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError


def import_ogbench(
    source: str | Path,
    target: str | Path,
    *,
    low: float = -1.0,
    high: float = 1.0,
    num_actions: int = 0,
    clip: bool = False,
) -> Path:
    """Write the episodes of an OGBench file into the folder `target`. The file is held in memory.

    Args:
        low, high: bounds of real-valued actions; OGBench's are -1 and 1.
        num_actions: of integer actions (powderworld); 0: the largest in the file and those below.
        clip: clip actions to the bounds.

    Raises:
        UserError: no such file, not of this form, images, or an episode does not fit.
    """
    source = Path(source)
    columns = _columns(source)
    obs, action = columns["observations"], columns["actions"]
    if obs.ndim != 2:
        raise UserError(
            f"{source}: observations has shape {obs.shape}, images perhaps; allowed is (N, O)"
        )
    spec = _action_spec(action, low, high, num_actions)
    # Rows after the last mark are an episode, too.
    ends = [*np.flatnonzero(columns["terminals"][:-1]).tolist(), len(obs) - 1]
    made_by = {"by": "import_ogbench", "source": source.name}
    following = columns.get("next_observations")
    with Writer(target, ObservationSpec(dim=obs.shape[1]), spec, made_by) as writer:
        first = 0
        for end in ends:
            if following is None:
                seen, last = obs[first : end + 1], end
            else:
                seen, last = np.concatenate([obs[first : end + 1], following[[end]]]), end + 1
            writer.append(Episode(seen, clipped(action[first:last], spec, clip)))
            first = end + 1
    return writer.path


def _columns(source: Path) -> dict[str, np.ndarray]:
    if not source.is_file():
        raise UserError(f"no file {source}; allowed: an OGBench .npz")
    try:
        file = np.load(source, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array")
        with file:
            wanted = ("observations", "actions", "terminals", "next_observations")
            columns = {name: file[name] for name in wanted if name in file}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{source} is no .npz file: {error}") from None
    for name in wanted[:3]:
        if name not in columns:
            raise UserError(f"{source} has no {name}; allowed: a file with {', '.join(wanted[:3])}")
    rows = {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) != 1 or not len(columns["terminals"]):
        raise UserError(f"{source}: numbers of rows are {rows}; allowed are equal ones, 1 or more")
    return columns


def _action_spec(action: Any, low: float, high: float, num_actions: int) -> ActionSpec:
    if action.dtype.kind in "iu":
        return ActionSpec(num_actions=num_actions or int(action.max()) + 1)
    if action.ndim != 2:
        raise UserError(f"actions has shape {action.shape}; allowed is (N, A), or integers (N,)")
    return bounded(action.shape[1], low, high, low, high)
