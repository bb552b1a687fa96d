"""The user's own files and folders that a run computes with: recorded with it, and compared before it goes on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from agents import references
from agents.references import is_reference, load
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir


def fingerprints(names: Iterable[str]) -> dict[str, str | None]:
    """SHA-256 of the file of every reference, all of which were loaded before, and of the manifest of every folder, which
    holds the checksums of what is in it."""
    return {name: fingerprint(name) for name in sorted(set(names))}


def fingerprint(name: str) -> str | None:
    """SHA-256 of one of them; None for a module without a file."""
    if is_reference(name):
        return references.fingerprint(name)
    return hashlib.sha256((Path(name) / "manifest.json").read_bytes()).hexdigest()


def check_unchanged(run: RunDir) -> None:
    """Raise `UserError` if a file of the user's differs from what the run was started with.

    Its numbers would belong to neither version. Runs made before files were recorded pass.
    """
    for name, recorded in run.info.get("own_files", {}).items():
        try:
            if is_reference(name):
                load(name)
            now = fingerprint(name)
        except (ValueError, OSError) as error:
            raise UserError(f"{run.path} needs {name}: {error}") from None
        if now != recorded:
            raise UserError(
                f"{name} has changed since {run.path} was started (SHA-256 {str(now)[:12]}, then {str(recorded)[:12]}); "
                "put the file back, or start another run with the new one"
            )
