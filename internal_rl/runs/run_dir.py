"""A run directory explains itself: what ran, from which config and code, on what, and what came
out.

    run.json        stage, status, versions, git commit, device, seed, parent runs
    config.json     the resolved config
    metrics.jsonl   one line per chunk, reproducible bit for bit
    timing.jsonl    one line per chunk, wall-clock quantities
    tensorboard/    events
    checkpoints/    training state
    figures/

`evaluate`, `--resume` and the next stage need only this directory. Every file is written whole or
not at all.
"""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from internal_rl.config import Config
from internal_rl.errors import UserError
from internal_rl.runs.config_io import config_from_json, config_to_json
from internal_rl.runs.lock import LOCK, writer

SCHEMA = "internal-rl-run"
SCHEMA_VERSION = 1
_PACKAGES = [
    "internal-rl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "distrax",
    "gymnax",
    "orbax-checkpoint",
    "safetensors",
    "numpy",
]
ConfigT = TypeVar("ConfigT")


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all: into a temporary file beside `path`, then renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class RunDir:
    """A handle on a run directory; everything but `path` is read from disk when asked for."""

    path: Path

    @property
    def info(self) -> dict[str, Any]:
        """The contents of run.json."""
        return _read_json(self.path / "run.json")

    @property
    def stage(self) -> str:
        """Name of the stage that the run belongs to."""
        return self.info["stage"]

    @property
    def config(self) -> Config:
        """The resolved config of the four stages of internal RL; `load_config` reads other kinds."""
        return self.load_config(Config)

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing_file(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def tensorboard_dir(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints_dir(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures_dir(self) -> Path:
        return self.path / "figures"

    def load_config(self, cls: type[ConfigT]) -> ConfigT:
        """The resolved config as `cls`. Raises `UserError` naming unknown, missing or wrong
        fields."""
        file = self.path / "config.json"
        commit = (self.info.get("git") or {}).get("commit")
        made = f" (made at commit {commit[:12]})" if commit else ""
        return config_from_json(_read_json(file), cls, source=f"{file}{made}")

    def parent(self, name: str, stage: str | None = None) -> "RunDir":
        """Open the parent run recorded as `name`. Raises `UserError` if there is none or it was
        moved."""
        parents = self.info["parents"]
        if name not in parents:
            known = ", ".join(sorted(parents)) or "none"
            raise UserError(f"{self.path}: no parent run '{name}' is recorded (recorded: {known})")
        path = (self.path.resolve() / parents[name]["path"]).resolve()
        if not path.exists():
            raise UserError(
                f"{self.path} builds on run {path}, which does not exist; runs that belong together are moved together"
            )
        return open_run(path, stage or name)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that tells this run, as far as it is trained, from any other: of its config, its metrics, the step of
        its newest weights and those it was made around. The same training repeated gives the same."""
        files = [self.path / "config.json", self.metrics_file]
        files += sorted((self.path / "weights").glob("*.json"))
        steps = [int(p.parent.name) for p in self.checkpoints_dir.glob("[0-9]*/manifest.json")]
        digest = hashlib.sha256(str(max(steps, default=None)).encode())
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def set_status(self, status: Literal["running", "done"]) -> None:
        """Record in run.json that the run is going on or complete."""
        write_json(self.path / "run.json", {**self.info, "status": status})


def create(
    path: str | Path,
    stage: str,
    config: Any,
    *,
    overwrite: bool = False,
    parents: Mapping[str, RunDir] | None = None,
    parent_seed: int = 0,
    num_seeds: int = 1,
    own_files: Mapping[str, str | None] | None = None,
) -> RunDir:
    """Make a new run directory, complete from the moment it appears under its name.

    Args:
        path: where; parent folders are made. An empty folder may exist there, anything else may
            not.
        stage: name of the stage, e.g. "pretrain".
        config: any frozen dataclass; its `seed` is copied into run.json.
        overwrite: replace an existing *run directory* at `path`; no other folder is ever deleted.
        parents: runs that this one starts from, by name. They are recorded relative to the run
            directory, so that a tree of runs can be moved.
        parent_seed: which seed of the parents this run starts from.
        num_seeds: size of the leading seed axis of the training state.
        own_files: SHA-256 by reference of the user's files that the run computes with.

    Raises:
        UserError: the name is taken, or `overwrite` would delete a folder that is no run or that is
            a parent.
    """
    path, parents = Path(path), parents or {}
    occupied = path.is_symlink() or (
        path.exists() and not (path.is_dir() and not any(path.iterdir()))
    )
    if occupied:
        _check_overwritable(path, overwrite, parents)
    info = _describe(path, stage, config, parents, parent_seed, num_seeds)
    info["own_files"] = dict(own_files or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run directory {path} cannot be made: {error}") from None
    token = uuid.uuid4().hex[:8]
    fresh = path.parent / f".{path.name}.{token}.new"
    old = path.parent / f".{path.name}.{token}.old"
    try:
        for folder in ("tensorboard", "checkpoints", "figures"):
            (fresh / folder).mkdir(parents=True)
        (fresh / "metrics.jsonl").touch()
        (fresh / "timing.jsonl").touch()
        (fresh / LOCK).touch()
        write_json(fresh / "config.json", config_to_json(config))
        write_json(fresh / "run.json", info)
        # A run that is still being written is not taken away.
        with writer(path) if occupied else contextlib.nullcontext():
            if occupied:
                path.rename(old)
        fresh.rename(path)  # replaces an empty folder on POSIX
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and path.exists():
            shutil.rmtree(old)
    return RunDir(path)


def open_run(path: str | Path, stage: str | None = None) -> RunDir:
    """Open an existing run directory.

    Raises `UserError` when the folder is missing, is no run directory, was written by another
    schema version, or belongs to another stage than `stage`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"run directory {path} does not exist")
    if not is_run(path):
        raise UserError(
            f"{path} is not a run directory (it has no run.json written by internal-rl)"
        )
    run = RunDir(path)
    info = run.info
    if info["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path} has run schema version {info['schema_version']}; "
            f"this code reads version {SCHEMA_VERSION}"
        )
    if stage is not None and info["stage"] != stage:
        raise UserError(f"{path} is a run of stage '{info['stage']}'; expected stage '{stage}'")
    return run


def check_parents(run: RunDir) -> None:
    """Raise `UserError` if a run that `run` builds on is no longer what it was then. Runs made before fingerprints were
    recorded pass."""
    for name, recorded in run.info["parents"].items():
        known = recorded.get("fingerprint")
        parent = run.parent(name, recorded["stage"])
        if known is not None and parent.fingerprint != known:
            raise UserError(
                f"{parent.path} is not the run that {run.path} was built on: it was trained again or further; "
                "put it back, or start another run on it"
            )


def is_run(path: str | Path) -> bool:
    """Whether `path` is recognisably a run directory of ours."""
    try:
        info = json.loads((Path(path) / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(info, dict)
        and info.get("schema") == SCHEMA
        and {"schema_version", "stage", "status", "parents"} <= info.keys()
    )


def _check_overwritable(path: Path, overwrite: bool, parents: Mapping[str, RunDir]) -> None:
    if not is_run(path) or path.is_symlink():
        raise UserError(f"{path} exists and is not a run directory; choose another name")
    if not overwrite:
        raise UserError(
            f"run {path} exists; choose another name, or pass --overwrite to replace it (--resume goes on with a run)"
        )
    for name, parent in parents.items():
        if parent.path.resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"--overwrite {path} would delete its own parent run ({name}: {parent.path})"
            )


def _describe(
    path: Path,
    stage: str,
    config: Any,
    parents: Mapping[str, RunDir],
    parent_seed: int,
    num_seeds: int,
) -> dict[str, Any]:
    import jax  # reading a run needs none

    devices = jax.devices()
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "status": "running",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": getattr(config, "seed", None),
        "num_seeds": num_seeds,
        "parent_seed": parent_seed,
        "parents": {
            name: {
                "path": os.path.relpath(parent.path.resolve(), path.resolve()),
                "stage": parent.stage,
                "git": parent.info["git"],
                "fingerprint": parent.fingerprint,
            }
            for name, parent in parents.items()
        },
        "git": git_state(),
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "host": {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()},
        "versions": {"python": platform.python_version(), **_versions()},
    }


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit of the code and whether tracked files differ from it; both None outside a git
    checkout."""
    here = Path(__file__).resolve()
    # An installed copy inside somebody else's repository must not report that repository's commit.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return {"commit": None, "dirty": None}
    status = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(here.parent, "rev-parse", "HEAD"), "dirty": bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
