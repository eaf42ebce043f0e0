"""Outages of the storage, and full disks: a sweep waits for their end while its trials go on."""

from __future__ import annotations

import time
from types import TracebackType

from smpo.app.sweep.display import SweepDisplay
from smpo.sweep.storage import first_line, trouble

__all__ = ["RetryOutages"]

_OUTAGE = 600.0
"""Seconds of an outage after which its error is raised."""
_PAUSE = 1.0


class RetryOutages:
    """A context for work that is repeated: swallows errors of the storage for ten minutes, then raises them.

    Optuna retries nothing itself: `RDBStorage` raises at once, and so does the journal on a full disk.
    """

    def __init__(self, screen: SweepDisplay) -> None:
        self._screen = screen
        self._since: float | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool:
        now = time.monotonic()
        if error is None:
            if self._since is not None:
                self._screen.note(f"it goes on again, after {now - self._since:.0f} s")
            self._since = None
            return False
        if not isinstance(error, trouble()):
            return False
        if self._since is None:
            self._since = now
            self._screen.warn(f"the sweep has to wait ({first_line(error)}); it tries for ten minutes")
        if now - self._since > _OUTAGE:
            return False
        time.sleep(_PAUSE)
        return True
