"""Makes the small files beside it with the libraries whose formats our importers read. Run from the repository's root:

pip install "minari[hdf5]==0.5.4"; pip install --no-deps ogbench==1.2.2
python -m tests.internal_rl.demonstrations.data.make_data minari ogbench
pip install lerobot==0.4.4        (in an environment of its own)
python -m tests.internal_rl.demonstrations.data.make_data lerobot
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.internal_rl.demonstrations.known import (
    LENGTHS,
    TASKS,
    actions,
    choices,
    observations,
    rewards,
    tokens,
)

HERE = Path(__file__).parent


def make_minari():
    """Vectors, choices and dictionaries."""
    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
    import minari
    from gymnasium import spaces
    from minari.data_collector.episode_buffer import EpisodeBuffer

    def box(dim, bound=np.inf):
        return spaces.Box(-bound, bound, (dim,), np.float32)

    def add(name, obs_space, action_space, obs, action, data_format="arrow"):
        buffers = []
        for e, steps in enumerate(LENGTHS):
            ends = [False] * (steps - 1) + [True]
            buffers.append(
                EpisodeBuffer(
                    id=e,
                    observations=obs(e, steps + 1),
                    actions=list(action(e, steps)),
                    rewards=list(rewards(e, steps)),
                    terminations=ends,
                    truncations=[False] * steps,
                )
            )
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=obs_space,
            action_space=action_space,
            data_format=data_format,
        )
        shutil.copytree(Path(os.environ["MINARI_DATASETS_PATH"]) / name, HERE / "minari" / name)

    def vectors(e, rows):
        return list(observations(e, rows))

    def dictionaries(e, rows):
        values = observations(e, rows)
        return {"observation": list(values[:, :2]), "goal": list(values[:, 2:])}

    shutil.rmtree(HERE / "minari", ignore_errors=True)
    add("point-v0", box(3), box(2, 1.0), vectors, actions, "hdf5")  # the usual format
    # Choices that do not start at 0.
    add(
        "walk-v0",
        spaces.Discrete(7, start=10),
        spaces.Discrete(4, start=1),
        lambda e, rows: list(tokens(e, rows) + 10),
        lambda e, rows: choices(e, rows) + 1,
    )
    goals = spaces.Dict({"observation": box(2), "goal": box(1)})
    add("goal-v0", goals, box(2), dictionaries, actions)


def make_ogbench():
    """A file with the keys and dtypes of the published ones (the package has no writer), and what OGBench's own loader
    makes of it."""
    utils = _without_environments("ogbench")
    columns = {"observations": [], "actions": [], "terminals": [], "qpos": []}
    for e, steps in enumerate(LENGTHS):
        columns["observations"].append(observations(e, steps + 1))
        columns["actions"].append(actions(e, steps + 1))
        columns["terminals"].append(np.arange(steps + 1) == steps)
        columns["qpos"].append(observations(e, steps + 1)[:, :2])
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    folder = HERE / "ogbench"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "point.npz", **joined)
    np.savez_compressed(
        folder / "point-loaded.npz", **utils.load_dataset(str(folder / "point.npz"))
    )


def _without_environments(package):
    """`utils` of a package whose own imports would ask for its environments."""
    spec = importlib.util.find_spec(package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    return importlib.import_module(f"{package}.utils")


def make_lerobot():
    """Frames in several files; an episode of T steps has T + 1 frames."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from pyarrow import parquet

    shutil.rmtree(HERE / "lerobot", ignore_errors=True)
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "observation.side": {"dtype": "float32", "shape": (1,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("known/point", 10, features, HERE / "lerobot", use_videos=False)
    for e, steps in enumerate((*LENGTHS, 0)):
        if e == 2:  # recording that goes on later starts new files
            data.finalize()
            data = LeRobotDataset("known/point", HERE / "lerobot")
        obs = observations(e, steps + 1)
        action, reward = actions(e, steps + 1), rewards(e, steps + 1)
        for t in range(steps + 1):
            data.add_frame(
                {
                    "observation.state": obs[t, :2],
                    "observation.side": obs[t, 2:],
                    "action": action[t],
                    "next.reward": reward[t : t + 1],
                    "task": TASKS[e % 2],
                }
            )
        data.save_episode()
    data.finalize()
    # Statistics are most of it, and nothing of ours reads them.
    (HERE / "lerobot" / "meta" / "stats.json").unlink()
    for file in (HERE / "lerobot" / "meta" / "episodes").rglob("*.parquet"):
        table = parquet.read_table(file)
        kept = [name for name in table.column_names if not name.startswith("stats/")]
        parquet.write_table(table.select(kept), file)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {"minari": make_minari, "ogbench": make_ogbench, "lerobot": make_lerobot}[name]()
