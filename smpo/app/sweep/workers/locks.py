"""File locks by which the workers of a machine see which of them live."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["WorkerLocks"]


class WorkerLocks:
    """Each worker holds a file lock, which dies with it."""

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._worker = folder, worker
        self._lock = FileLock(folder / f"{worker}.lock")

    def __enter__(self) -> WorkerLocks:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):
            (self._folder / f"{self._worker}.lock").unlink(missing_ok=True)

    def others(self) -> dict[str, bool]:
        """Workers of this machine by name, and whether they live."""
        found = {self._worker: True}
        for file in self._folder.glob(f"{socket.gethostname()}-*.lock"):
            if file.stem == self._worker:
                continue
            with contextlib.suppress(OSError):
                try:
                    with FileLock(file).acquire(blocking=False):
                        found[file.stem] = False
                except Timeout:
                    found[file.stem] = True
        return found
