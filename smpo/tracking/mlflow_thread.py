"""A mirror in a thread of its own, so that training never waits for a network or a database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from smpo.engine.monitoring.tracker import Ending, RunInfo
from smpo.secrets import masked
from smpo.tracking.mirror import Destination, Mirror, read_place

__all__ = ["SHARE", "MirrorTracker", "rest"]

SHARE = 0.01
"""Of the process's time, what the mirror's thread may take from training."""


def rest(spent: float, every: float, *, failures: int = 0, share: float = SHARE) -> float:
    """Seconds until the log is read again, when the values of the last time took `spent` seconds of processor time.

    max(`every`, `spent` / `share`): MLflow takes 50 microseconds for a value, so `every` holds for runs of up to 200
    values a second. Twice as long after each failure of the destination, at most a minute.
    """
    return min(60.0, every * 2**failures) if failures else max(every, spent / share)


class MirrorTracker:
    """A `Mirror` in a thread of its own, as a tracker. It belongs behind a `JsonlTracker` of the same folder.

    Metrics are sent every `every` seconds or, where that would take more than `share` of the time, less often (`rest`);
    pictures, files and the end at once, and all metrics with them.

    Only `finish` waits for the destination, and that at most `grace` seconds; a destination that is known to be down is
    given one last try. A failure is reported once.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        *,
        say: Callable[[str], None] | None = None,
        every: float = 3.0,
        share: float = SHARE,
        grace: float = 60.0,
    ) -> None:
        self._destination = destination
        self._mirror = Mirror(folder, destination)
        self._say = say
        self._every, self._share, self._grace = every, share, grace
        self._thread: threading.Thread | None = None
        self._wake, self._closing, self._opened = threading.Event(), threading.Event(), threading.Event()
        self._failures = 0
        self._complained = False
        self._reported_refusal = False

    def start(self, info: RunInfo) -> None:
        # A daemon: a destination that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"mirror {info.run_id}", daemon=True)
        self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing to do: they are in the log, and the thread looks there by itself."""

    def _hurry(self, *_: object, **__: object) -> None:
        if not self._failures:  # while the destination is down, the pauses are on purpose
            self._wake.set()

    params = images = artefact = text = dataset = model = _hurry

    def finish(self, status: Ending) -> None:
        if self._thread is None:
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(self._grace)
        if not self._mirror.ended:
            self._complain("did not answer in time" if self._thread.is_alive() else "is missing the end")

    def place(self, timeout: float = 0.0) -> dict[str, Any] | None:
        """Address and ids of the mirrored run, once there is one; waits at most `timeout` seconds for it."""
        return read_place(self._mirror.folder) if self._opened.wait(timeout) else None

    def _work(self) -> None:
        while True:
            closing = self._closing.is_set()
            opened, before = self._mirror.opened, self._mirror.spent
            try:
                self._mirror.advance()
            except Exception as error:
                self._failures += 1
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._complain(f"failed ({masked(lines[0])[:160]})")
                if closing:
                    with contextlib.suppress(Exception):
                        self._mirror.conclude()
            else:
                self._failures = 0
                if self._mirror.opened:
                    self._opened.set()
                if self._mirror.refusals and self._say is not None and not self._reported_refusal:
                    # Skipped for good: sending again would not help, so `track sync` isn't mentioned.
                    self._reported_refusal = True
                    refusal = self._mirror.refusals[0]
                    self._say(f"tracking at {self._destination.shown} did not take everything ({refusal})")
            if closing:
                return
            if not self._closing.is_set():
                # The first time there may be a long log to send, of a run that goes on: once, whatever comes.
                spent = self._mirror.spent - before if opened else 0.0
                self._wake.wait(rest(spent, self._every, failures=self._failures, share=self._share))
            self._wake.clear()

    def _complain(self, trouble: str) -> None:
        if self._complained or self._say is None:
            return
        self._complained = True
        self._say(
            f"tracking at {self._destination.shown} {trouble}; the log of the run is complete, and "
            f"`smpo track sync {quote(str(self._mirror.folder))}` sends what is missing"
        )
