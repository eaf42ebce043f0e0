"""Which workers of this machine are alive."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["WorkerLocks"]


class WorkerLocks:
    """Who of the workers on this machine is alive: each holds a file lock, which dies with it."""

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
        """Workers that have been here by name, and whether they still are; those of other machines are left out."""
        found = {self._worker: True}
        here = f"{socket.gethostname()}-"
        for file in self._folder.glob("*.lock"):
            if not file.name.startswith(here) or file.stem == self._worker:
                continue
            probe = FileLock(file)
            try:
                probe.acquire(blocking=False)
            except Timeout:
                found[file.stem] = True
            except OSError:
                continue
            else:
                probe.release()
                found[file.stem] = False
        return found
