"""Training state through orbax with a checksum manifest, and weights as safetensors.

A checkpoint is the folder `checkpoints/<step>/`. Its `manifest.json`, written last, lists every
leaf and the SHA-256 of every file; a folder without it was cut off while being written (kill -9)
and is ignored, a folder whose files disagree with it is corrupt and refused. Arrays come back bit
for bit, typed PRNG keys included.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir, write_json

StateT = TypeVar("StateT")
_MANIFEST = "manifest.json"
_ITEM = "default"  # the folder that CheckpointManager gives to a single item


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run directory (or a folder that holds checkpoints).
        keep: how many to keep; older ones are deleted once a new one is complete.
    """

    def __init__(self, run: RunDir | Path, keep: int = 2):
        self.folder = (run.checkpoints_dir if isinstance(run, RunDir) else Path(run)).resolve()
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(path.name)
            for path in self.folder.iterdir()
            if path.name.isdecimal() and (path / _MANIFEST).is_file()
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any) -> None:
        """Write `state`, a pytree of arrays, as the checkpoint of `step`; returns when it is
        complete."""
        leaves = _named_leaves(state)
        if step in self.steps():
            raise ValueError(f"{self.folder} already holds a checkpoint of step {step}")
        self._manager.save(step, args=ocp.args.StandardSave(leaves))
        self._manager.wait_until_finished()
        target = self.folder / str(step)
        manifest = {"step": step, "leaves": _describe(leaves), "files": _hash_files(target)}
        write_json(target / _MANIFEST, _seal(manifest))
        for old in self.steps()[: -self.keep]:
            # Without its manifest a folder no longer counts, so being killed half-way through is
            # harmless.
            (self.folder / str(old) / _MANIFEST).unlink()
            self._manager.delete(old)

    def restore_latest(self, template: StateT) -> tuple[int, StateT]:
        """The newest complete checkpoint as (step, state).

        Args:
            template: a state, or `jax.eval_shape` of one; gives structure, shapes, dtypes and
                placement.

        Raises:
            UserError: there is no checkpoint, it is corrupt, or a leaf differs from the template
                (its path is named).
        """
        step = self.latest_step()
        if step is None:
            raise UserError(f"{self.folder} holds no complete checkpoint")
        source = self.folder / str(step)
        manifest = self._verified_manifest(source)
        leaves = _named_leaves(template)
        _check_leaves(str(source), manifest["leaves"], _describe(leaves))
        abstract = {name: _abstract(leaf) for name, leaf in leaves.items()}
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                restored = checkpointer.restore(source / _ITEM, abstract)
        except Exception as error:
            raise self._corrupt(source, f"{type(error).__name__}: {error}") from error
        treedef = jax.tree.structure(template)
        return step, jax.tree.unflatten(treedef, [restored[name] for name in leaves])

    def close(self) -> None:
        """Release the manager's threads."""
        if "_manager" in self.__dict__:
            self._manager.close()
            del self._manager

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made on the first save only: reading (evaluate, the next stage) changes nothing in the
        # folder.
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            ours = path.name.isdecimal() or ".orbax-checkpoint-tmp" in path.name
            if ours and path.is_dir() and not (path / _MANIFEST).is_file():
                shutil.rmtree(path)
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs every save
        options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.folder, options=options)

    def _verified_manifest(self, folder: Path) -> dict[str, Any]:
        manifest = _unseal((folder / _MANIFEST).read_bytes())
        if manifest is None:
            raise self._corrupt(folder, f"{_MANIFEST} is damaged")
        found = _hash_files(folder)
        for name, digest in manifest["files"].items():
            if found.get(name) != digest:
                problem = "is missing" if name not in found else "differs from its checksum"
                raise self._corrupt(folder, f"{name} {problem}")
        return manifest

    def _corrupt(self, folder: Path, reason: str) -> UserError:
        older = [step for step in self.steps() if step < int(folder.name)]
        advice = (
            f"delete that folder to go on from step {older[-1]}"
            if older
            else "it is the only one: start the run again with --overwrite"
        )
        return UserError(f"checkpoint {folder} is corrupt ({reason}); {advice}")


def export_params(path: str | Path, params: Any, metadata: Mapping[str, Any]) -> None:
    """Write a pytree of arrays as `path` (safetensors) and `metadata` as `path` with suffix .json.

    Names are the leaves' paths joined by '/'. The JSON also holds the SHA-256 of the weights and of
    itself, so that the pair is checked when it is read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves = {name: jnp.asarray(leaf) for name, leaf in _named_leaves(params).items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(leaves, temporary)
    temporary.chmod(0o666 & ~_umask())  # safetensors writes private files
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(path)
    write_json(path.with_suffix(".json"), _seal({"metadata": dict(metadata), "weights": digest}))


def import_params(path: str | Path, template: StateT) -> tuple[StateT, dict[str, Any]]:
    """Read weights written by `export_params`: (pytree like `template`, metadata).

    Raises `UserError` when a file is missing or damaged, or naming the first leaf that differs from
    the template.
    """
    path = Path(path)
    description = _read_sealed(path.with_suffix(".json"))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != description["weights"]:
        raise UserError(f"weights {path} differ from the checksum in {path.stem}.json")
    found = load_file(str(path))
    leaves = _named_leaves(template)
    _check_leaves(str(path), _describe(found), _describe(leaves))
    arrays = [
        jax.device_put(found[name], _abstract(leaf).sharding) for name, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), arrays), description["metadata"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_weights(path: str | Path, template: StateT) -> StateT:
    """Weights of any safetensors file whose leaves are named and shaped as the template's.

    Raises:
        UserError: the file is missing or damaged, or naming the first leaf that differs.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights {path} do not exist")
    try:
        found = load_file(str(path))
    except SafetensorError as error:
        raise UserError(f"weights {path} cannot be read: {error}") from None
    leaves = _named_leaves(template)
    _check_leaves(str(path), _describe(found), _describe(leaves))
    arrays = [found[name] for name in leaves]
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def read_metadata(path: Path) -> dict[str, Any]:
    """What `export_params` was given as `metadata`, from the JSON file at `path`. Raises `UserError` if it is damaged."""
    return _read_sealed(path)["metadata"]


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        content = _unseal(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}, which describes the weights, cannot be read: {error}") from None
    if content is None:
        raise UserError(f"{path}, which describes the weights, is damaged")
    return content


def _seal(content: dict[str, Any]) -> dict[str, Any]:
    return {"content": content, "sha256": _digest(content)}


def _unseal(data: bytes) -> dict[str, Any] | None:
    """The content of a sealed JSON file, None if a single byte of it was changed."""
    try:
        sealed = json.loads(data)
        content = sealed["content"]
        return content if _digest(content) == sealed["sha256"] else None
    except (ValueError, KeyError, TypeError):
        return None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves in tree order, by path; empty for an empty tree."""
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    if len(named) != len(jax.tree.leaves(tree)):
        raise ValueError("two leaves of the tree have the same path")
    for name, leaf in named.items():
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(f"leaf {name} is a {type(leaf).__name__}, not an array")
    return named


def _describe(leaves: Mapping[str, Any]) -> dict[str, list]:
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves.items()}


def _check_leaves(source: str, found: Mapping[str, list], wanted: Mapping[str, list]) -> None:
    for name, (shape, dtype) in wanted.items():
        if name not in found:
            raise UserError(f"{source}: leaf {name} is missing; expected shape {shape} {dtype}")
        if list(found[name]) != [shape, dtype]:
            raise UserError(
                f"{source}: leaf {name} has shape {found[name][0]} {found[name][1]}; "
                f"expected shape {shape} {dtype}"
            )
    for name in found:
        if name not in wanted:
            raise UserError(f"{source}: leaf {name} is not part of the expected state")


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # A placement is always given: a checkpoint of another machine must not ask for that machine's
    # devices.
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / _MANIFEST
    }
