"""Facts about a run as MLflow takes them: which characters, how long, what instead of a large file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LONGEST_PARAM", "batches", "cut", "hashes", "key", "run_tags", "size", "words"]

LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 6000, 8000, 250


def run_tags(start: Mapping[str, Any]) -> dict[str, str]:
    """Tags of the run that a `start` event describes: ours, MLflow's own, the user's; none of them empty."""
    tags = {
        "smpo.spec": start["spec_hash"],
        "smpo.group": start["group_hash"],
        "smpo.attempt": start["attempt"],
        "smpo.commit": start["commit"],
        "smpo.folder": start["folder"],
        "mlflow.runName": start["tags"].get("smpo.title") or start["run_id"],
        "mlflow.note.content": start["notes"],
        "mlflow.source.git.commit": start["commit"],
        **start["tags"],
    }
    return {key(name): cut(str(value), LONGEST_TAG) for name, value in tags.items() if str(value)}


def key(name: str) -> str:
    """A name that MLflow takes for metrics, parameters and tags."""
    return re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name)[:LONGEST_KEY]


def words(value: Any) -> str:
    """A setting as text: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def cut(text: str, limit: int) -> str:
    """Cut on purpose, and visibly; MLflow would cut as well, with a warning for each value."""
    return text if len(text) <= limit else f"{text[: limit - 40]}… ({len(text)} characters in all)"


def batches(values: Sequence[Any], size: int = 100) -> Iterator[Sequence[Any]]:
    """Parts of a list; MLflow takes 100 parameters or tags and 1,000 metrics in one request."""
    for first in range(0, len(values), size):
        yield values[first : first + size]


def size(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def hashes(path: Path) -> dict[str, str]:
    """sha256 of a file, or of every file in a folder."""
    digests = {}
    for file in _files(path):
        with file.open("rb") as stream:
            digests[file.relative_to(path.parent).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
