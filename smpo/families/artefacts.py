"""Folders that others open: written whole or not at all, without traces of the machine they come from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smpo.errors import RunError

__all__ = ["replaced_folder", "without_paths"]

_MARKS = ("model_index.json", "pytorch_lora_weights.safetensors", "model.safetensors")
_TRACES = ("_name_or_path", "name_or_path", "_commit_hash")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends well.

    After an error `folder` is as it was. What stood there before goes only once the new one is complete, and
    only if it is a saved model: anything else is somebody's mistyped path, and raises `RunError`. What a process left
    that was killed in here goes too.
    """
    if folder.exists() and any(folder.iterdir()) and not any((folder / mark).exists() for mark in _MARKS):
        raise RunError(f"{folder} exists and is not a saved model", help="choose a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.new-{os.getpid()}"
    old = folder.parent / f".{folder.name}.old-{os.getpid()}"
    for leftover in (
        *folder.parent.glob(f".{folder.name}.new-*"),
        *folder.parent.glob(f".{folder.name}.old-*"),
    ):
        if not _is_written(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _is_written(draft: Path) -> bool:
    """Whether the process that the draft is named after, another one than this, is alive here."""
    number = draft.name.rpartition("-")[2]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def without_paths(folder: Path) -> None:
    """Take out of all JSON files where the parts were loaded from: nobody's business, and never the same."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and any(key in content for key in _TRACES):
            kept = {key: value for key, value in content.items() if key not in _TRACES}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
