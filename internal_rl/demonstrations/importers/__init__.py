"""Demonstrations of other projects, each written as a folder of ours (see `demonstrations.disk`).

    import_minari      data sets of Minari, by id or folder                     extra `data`
    import_ogbench     .npz files of OGBench                                    NumPy alone
    import_lerobot     LeRobot v3 folders, through pyarrow alone                extra `data`
    import_reference   a user's own iterable of episodes, `path/to/file.py:NAME`

All take (source, target, ...), never overwrite, write one episode at a time and return the folder.
"""

from internal_rl.demonstrations.importers.lerobot import import_lerobot
from internal_rl.demonstrations.importers.minari import import_minari
from internal_rl.demonstrations.importers.ogbench import import_ogbench
from internal_rl.demonstrations.importers.reference import import_reference

__all__ = ["import_lerobot", "import_minari", "import_ogbench", "import_reference"]
