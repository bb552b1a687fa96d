"""Episodes into a folder of demonstrations, one after the other, without holding more than one in memory."""

import contextlib
import dataclasses
import json
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.disk import (
    MANIFEST,
    field_dtype,
    field_shape,
    load_array,
    manifest_of,
)
from internal_rl.demonstrations.episode import Episode, check_labels, stored_episode
from internal_rl.demonstrations.values import obs_statistics
from internal_rl.errors import UserError
from internal_rl.runs.lock import LOCK
from internal_rl.runs.lock import writer as locked

_PROGRESS = "progress.json"


class Writer:
    """A new folder of demonstrations (see `disk` for what is in it).

        with Writer(path, world.obs_spec, world.action_spec, {"by": "me"}) as writer:
            for ...:
                writer.append(Episode(obs, action))

    The folder appears under its name when the block is left without an error, and is then complete; after an error
    nothing is left. Which optional fields there are, the first episode decides; the others must have the same.

    With `resume`, what was written up to the last `save` outlives an error or a kill, hidden beside `path`; the next
    writer for the same `path` goes on from there, and `position` is what `save` was told.

    Args:
        made_by: how the data came about, anything that JSON can hold; into the manifest. One that resumes must give the
            same.

    Raises:
        UserError: from the constructor, `path` exists (nothing is ever overwritten), `made_by` is no JSON, or what there
            is to resume is something else or in use; from `append`, the episode does not fit; from `finish`, there are
            no episodes.
    """

    def __init__(
        self,
        path: str | Path,
        obs_spec: ObservationSpec,
        action_spec: ActionSpec,
        made_by: dict[str, Any] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.obs_spec, self.action_spec = obs_spec, action_spec
        self.episodes = self.steps = 0
        self.position: Any = None
        """What the last `save` was told; None: nothing was saved."""
        self._made_by = dict(made_by or {})
        try:
            json.dumps(self._made_by, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"made_by cannot be written as JSON: {error}") from None
        self._labels: tuple[str, ...] = ()
        self._files: dict[str, _GrowingArray] = {}
        self._lock = contextlib.ExitStack()
        refuse_existing(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = "partial" if resume else uuid.uuid4().hex
        self._folder = self.path.parent / f".{self.path.name}-{name}"
        self._folder.mkdir(exist_ok=resume)
        if resume:
            self._lock.enter_context(locked(self._folder))
            self._go_on()

    def append(self, episode: Episode) -> None:
        """Add one episode."""
        try:
            arrays = stored_episode(episode, self.obs_spec, self.action_spec)
            if not self.episodes:
                self._labels = episode.labels
            check_labels(episode.labels, self._labels)
        except ValueError as error:
            raise UserError(f"episode {self.episodes}: {error}") from None
        if not self._files:
            self._open([*arrays, "starts"], resume=False)
            self._files["starts"].extend(np.zeros((1,), np.int64))
        for name, array in arrays.items():
            self._files[name].extend(array)
        self.episodes += 1
        self.steps += len(arrays["action"])
        self._files["starts"].extend(np.array([self.steps], np.int64))

    def save(self, position: Any = True) -> None:
        """What was written so far shall outlive this process; only with `resume`.

        Args:
            position: anything but None that JSON can hold, handed to the writer that goes on.
        """
        for file in self._files.values():
            file.flush()
        self.position = position
        progress = self._identity() | {
            "episodes": self.episodes,
            "steps": self.steps,
            "labels": self._labels,
            "position": position,
        }
        fresh = self._folder / f"{_PROGRESS}.new"
        fresh.write_text(json.dumps(progress, allow_nan=False), encoding="utf-8")
        os.replace(fresh, self._folder / _PROGRESS)

    def finish(self) -> Path:
        """Complete the folder and give it its name."""
        if not self.episodes:
            raise UserError(f"no episodes for {self.path}; allowed are 1 or more")
        for file in self._files.values():
            file.close()
        statistics = obs_statistics(load_array(self._folder / "obs.npy"), self.obs_spec)
        manifest = manifest_of(
            self._folder, self.obs_spec, self.action_spec, statistics, self._made_by
        )
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        (self._folder / MANIFEST).write_text(text, encoding="utf-8")
        refuse_existing(self.path)  # a rename would take the place of an empty folder
        for name in (_PROGRESS, LOCK):
            (self._folder / name).unlink(missing_ok=True)
        os.rename(self._folder, self.path)
        return self.path

    def discard(self) -> None:
        """Remove what was written."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _identity(self) -> dict[str, Any]:
        """What the data is, as JSON has it."""
        specs = [dataclasses.asdict(spec) for spec in (self.obs_spec, self.action_spec)]
        return json.loads(json.dumps({"specs": specs, "made_by": self._made_by}))

    def _go_on(self) -> None:
        file = self._folder / _PROGRESS
        if not file.is_file():
            for left in self._folder.glob("*.npy"):
                left.unlink()
            return
        progress = json.loads(file.read_text(encoding="utf-8"))
        mine = self._identity()
        for name, value in mine.items():
            if progress[name] != value:
                self._lock.close()
                raise UserError(
                    f"{self._folder} holds a part of other demonstrations ({name} was {progress[name]}, is {value}); "
                    "remove it or choose another name"
                )
        self.episodes, self.steps = progress["episodes"], progress["steps"]
        self._labels, self.position = tuple(progress["labels"]), progress["position"]
        if self.episodes:
            self._open(["obs", "action", *self._labels, "starts"], resume=True)

    def _open(self, names: list[str], resume: bool) -> None:
        for name in names:
            rows, *tail = field_shape(
                name, self.obs_spec, self.action_spec, self.episodes, self.steps
            )
            self._files[name] = _GrowingArray(
                self._folder / f"{name}.npy",
                field_dtype(name, self.obs_spec, self.action_spec),
                tuple(tail),
                rows if resume else None,
            )

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._lock.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kept = error is not None and self.position is not None
        try:
            if error is None:
                self.finish()
        finally:
            if kept:
                self._close()
            else:
                self.discard()  # nothing is left of it when it has been renamed


class _GrowingArray:
    """A .npy file whose number of rows is known when it is closed; `rows` are kept of one that is there."""

    def __init__(
        self, path: Path, dtype: np.dtype, tail: tuple[int, ...], rows: int | None = None
    ) -> None:
        self.rows, self.dtype, self.tail = rows or 0, dtype, tail
        self.file: BinaryIO = path.open("wb" if rows is None else "r+b")
        self._header()
        self.offset = self.file.tell()
        row_bytes = dtype.itemsize * int(np.prod(tail, dtype=np.int64))
        self.file.truncate(self.offset + self.rows * row_bytes)
        self.file.seek(0, os.SEEK_END)

    def extend(self, array: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(array).tobytes())
        self.rows += len(array)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        if self.file.closed:
            return
        self.file.seek(0)
        self._header()
        # NumPy leaves room for the first axis to grow, so the data stays where it is.
        assert self.file.tell() == self.offset
        self.file.close()

    def _header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self.file,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.rows, *self.tail),
            },
        )


def refuse_existing(path: Path) -> None:
    """Raise UserError if something of this name is there."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists; choose another folder or remove it")
