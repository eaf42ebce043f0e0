"""The hashes of a finished run's files, by which a changed, missing or added file is found.

`files.json` is written last. It names what doesn't change any more: the model, the evaluation, the specs and the lock.
Logs and status go on being written, and checkpoints have manifests of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from smpo.runs.folder import RunFolder

__all__ = ["FILES", "faults", "read_manifest", "write_manifest"]

FILES = "files.json"
_KEPT = (
    "spec.yaml",
    "resolved.yaml",
    "plan.json",
    "lock.json",
    "data_report.json",
    "evaluation.json",
    "samples/before_after.png",
)
_MODEL, _CARD = "model", "model/README.md"
"""The card is left out: it is written to be edited by people."""


def write_manifest(run: RunFolder) -> Path:
    """Hash what is there now. The last thing that a run does."""
    names = [name for name in _KEPT if (run.path / name).is_file()] + list(_model_files(run.path))
    told = {name: {"bytes": (run.path / name).stat().st_size, "sha256": _digest(run.path / name)} for name in names}
    return run.write_text(FILES, json.dumps({"files": told}, indent=1) + "\n")


def read_manifest(run: RunFolder) -> dict[str, dict[str, Any]] | None:
    """Name -> `bytes` and `sha256`; None where there is no manifest or it makes no sense.

    A manifest is data: names that would lead out of the folder make it one that makes no sense.
    """
    try:
        files = json.loads((run.path / FILES).read_text(encoding="utf-8"))["files"]
        told = {str(name): {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return told if told and all(_inside(name) for name in told) else None


def faults(run: RunFolder) -> list[str]:
    """What isn't as it was left, in words; empty when everything is. Only for runs that have a manifest."""
    told = read_manifest(run) or {}
    found = []
    if run.dropped:
        told = {name: facts for name, facts in told.items() if not name.startswith(f"{_MODEL}/")}
    for name, facts in told.items():
        path = run.path / name
        if not path.resolve().is_relative_to(run.path.resolve()):
            found.append(f"{name} is a link that leads out of the run's folder")
        elif not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != facts["bytes"]:
            found.append(f"{name} has {path.stat().st_size:,} bytes, and had {facts['bytes']:,}")
        elif _digest(path) != facts["sha256"]:
            found.append(f"{name} has changed since it was written")
    found += [f"{name} was not written by the run" for name in _model_files(run.path) if name not in told]
    return found


def _model_files(folder: Path) -> Iterator[str]:
    for path in sorted((folder / _MODEL).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != _CARD and (path.is_symlink() or path.is_file()):
            yield name


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
