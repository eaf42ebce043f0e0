"""Which checkpoints a run has, and whether they are whole. No torch: looking is quick.

`manifest.json` is the mark of completion: it is written last, names every file with its SHA-256, and has a checksum of
its own, so that no flipped bit in any file passes for a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = [
    "MANIFEST",
    "checkpoints",
    "digest",
    "drop_old",
    "manifest_fault",
    "manifest_of",
    "name_of",
    "sign_manifest",
    "step_of",
    "without_manifest",
]

MANIFEST = "manifest.json"
SCORE = "score"
"""Among a checkpoint's facts: what the best is chosen by; higher is better."""
_SEAL = "sha256"


def name_of(step: int) -> str:
    """`step-00000120`: names sort as numbers do."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Updates that a checkpoint of this name holds; -1 for other names."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isascii() and number.isdigit() and path.name != number else -1


def checkpoints(folder: Path, step: int | None = None) -> list[Path]:
    """Complete-looking checkpoints, oldest first. Up to `step`: later ones are torn, or of a part of the run that is
    about to be repeated."""
    found = (path for path in folder.glob("step-*") if step_of(path) >= 0 and (path / MANIFEST).is_file())
    return sorted((path for path in found if step is None or step_of(path) <= step), key=step_of)


def without_manifest(folder: Path, *, after: Path | None) -> list[Path]:
    """What is called a checkpoint, is newer than `after`, and lacks its manifest: not smpo's doing, which deletes old
    ones only."""
    newest = -1 if after is None else step_of(after)
    found = (path for path in folder.glob("step-*") if path.is_dir() and not (path / MANIFEST).exists())
    return sorted((path for path in found if step_of(path) > newest), key=step_of)


def best_of(folder: Path, step: int | None = None) -> tuple[Path, float] | None:
    """The checkpoint with the highest score, the earliest of equals, and its score; None where none has one. Looks at
    manifests alone."""
    best: tuple[Path, float] | None = None
    for path in checkpoints(folder, step):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            score = float(manifest_of(path)["facts"][SCORE])
            if best is None or score > best[1]:
                best = path, score
    return best


def drop_old(folder: Path, keep: int, step: int | None = None) -> list[Path]:
    """Of those up to `step`, delete all but the newest `keep` and the best; returns those that are gone. The manifest
    goes first: a half deleted folder isn't a checkpoint, and the next call deletes the rest."""
    best = best_of(folder, step)
    old = [path for path in checkpoints(folder, step)[:-keep] if best is None or path != best[0]]
    for path in old:
        (path / MANIFEST).unlink(missing_ok=True)
    for path in folder.glob("step-*"):
        if not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)
    return old


def sign_manifest(facts: Mapping[str, Any]) -> str:
    """A manifest's text, with the checksum of the rest in it."""
    return json.dumps({**facts, _SEAL: _seal(facts)}, indent=1)


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises `ValueError` when it isn't as it was written, `OSError` when unreadable."""
    facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(facts, dict) or facts.pop(_SEAL, None) != _seal(facts):
        raise ValueError(f"{MANIFEST} has changed since it was written")
    return facts


def manifest_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when it is whole."""
    try:
        facts = manifest_of(path)
        if facts["step"] != step_of(path):
            return f"it holds {facts['step']} updates, and its name says {step_of(path)}"
        for name, told in facts["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if digest(path / name) != told:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return None


def digest(file: Path) -> str:
    """SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
