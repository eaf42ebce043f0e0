"""Folders that others open: written whole or not at all, without traces of the machine they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smpo.atomic import atomic_folder
from smpo.errors import RunError

__all__ = ["replaced_folder", "without_paths"]

_MARKS = ("model_index.json", "pytorch_lora_weights.safetensors", "model.safetensors")
_TRACES = ("_name_or_path", "name_or_path", "_commit_hash")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends well.

    After an error `folder` is as it was. Its earlier content is deleted once the new one is complete. Raises `RunError`
    where that isn't a saved model: the path may be mistyped. Leftovers of a killed process are deleted too.
    """
    if folder.exists() and any(folder.iterdir()) and not any((folder / mark).exists() for mark in _MARKS):
        raise RunError(f"{folder} exists and is not a saved model", help="choose a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        yield fresh


def without_paths(folder: Path) -> None:
    """Remove from all JSON files the paths that the parts were loaded from."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and any(key in content for key in _TRACES):
            kept = {key: value for key, value in content.items() if key not in _TRACES}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
