"""Which checkpoints a run has, and whether they are whole. No torch: looking is quick."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["MANIFEST", "checkpoints", "digest", "fault_of"]

MANIFEST = "manifest.json"


def checkpoints(folder: Path) -> list[Path]:
    """Complete-looking checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when it is whole."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, told in files.items():
            if digest(path / name) != told:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def digest(file: Path) -> str:
    """SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
