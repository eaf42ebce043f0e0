"""A storage that is away, or a disk that is full, is waited for; trials go on meanwhile."""

from __future__ import annotations

import time
from types import TracebackType

from smpo.app.sweep.display import SweepDisplay
from smpo.sweep.storage import trouble

__all__ = ["RetryOutages"]

_OUTAGE = 600.0
"""Seconds for which nothing has to answer."""
_PAUSE = 1.0


class RetryOutages:
    """Around whatever is tried again and again: swallows trouble for ten minutes, then lets it through."""

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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._screen.warn(f"the sweep has to wait ({reason}); it tries for ten minutes")
        if now - self._since > _OUTAGE:
            return False
        time.sleep(_PAUSE)
        return True
