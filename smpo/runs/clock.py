"""The time that a run writes down: it agrees with the clock on the wall when the run begins, and never goes backwards.

Wall clocks are set, by people and by time servers, and leap by hours on machines that were suspended or cloned. A run's
records are an order and durations, so they count from its beginning with a monotonic clock.
"""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Seconds since 1970, as counted from now on."""

    def __init__(self) -> None:
        self._base, self._began = time.time(), time.monotonic()

    def now(self) -> float:
        return self._base + time.monotonic() - self._began

    def not_before(self, moment: float) -> None:
        """What an earlier part of the run has written is past, even if the wall clock was set back since."""
        self._base += max(0.0, moment - self.now())
