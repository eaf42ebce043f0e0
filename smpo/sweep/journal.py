"""Optuna's journal file, made safe against writes that were cut off.

A full disk or a crash of the machine may leave half a line at the end. Optuna's readers pass over it, but the next
writer would append to it, and the resulting line could never be read. Here the next writer removes it first, which
loses nothing: the write never returned.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

__all__ = ["Journal"]


class Journal(JournalFileBackend):  # type: ignore[misc, unused-ignore]
    """A log of JSON lines. Raises `OSError` for what the disk refuses, and leaves no trace of it."""

    def __init__(self, path: Path) -> None:
        self._guard = JournalFileSymlinkLock(str(path))
        self._path = path
        super().__init__(str(path), lock_obj=self._guard)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._guard.acquire()
        try:
            with self._path.open("r+b") as file:
                end = _whole(file)
                try:
                    file.seek(end)
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), end)
                    raise
        finally:
            self._guard.release()


def _whole(file: Any) -> int:
    """Where the last whole line ends; what follows it is removed."""
    end = int(file.seek(0, os.SEEK_END))
    kept = end
    while kept > 0:
        file.seek(kept - 1)
        if file.read(1) == b"\n":
            break
        kept -= 1
    if kept < end:
        file.truncate(kept)
    return kept
