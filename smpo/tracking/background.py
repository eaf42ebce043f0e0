"""A mirror in a thread of its own, so that no network and no database is ever waited for by training."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.engine.events import Ending, RunInfo
from smpo.tracking.mirror import Destination, Mirror, read_place

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MirrorTracker"]


class MirrorTracker:
    """A `Mirror` in a thread of its own, as a tracker. It belongs behind a `JsonlTracker` of the same folder.

    Nothing here waits for the destination except `finish`, and that at most `grace` seconds; a destination
    that is known to be down is given one last try. Trouble is said once.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        *,
        say: Callable[[str], None] | None = None,
        every: float = 3.0,
        burst: int = 1000,
        grace: float = 60.0,
    ) -> None:
        self._destination = destination
        self._mirror = Mirror(folder, destination)
        self._say = say
        self._every, self._burst, self._grace = every, burst, grace
        self._thread: threading.Thread | None = None
        self._wake, self._closing, self._opened = threading.Event(), threading.Event(), threading.Event()
        self._waiting = 0
        self._failures = 0
        self._told = False
        self._regretted = False

    def start(self, info: RunInfo) -> None:
        # A daemon: a destination that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"mirror {info.run_id}", daemon=True)
        self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._waiting += len(values)
        if self._waiting >= self._burst:
            self._hurry()

    def params(self, values: Mapping[str, Any]) -> None:
        self._hurry()

    def images(self, name: str, grid: Image.Image, step: int) -> None:
        self._hurry()

    def artefact(self, path: Path, folder: str = "") -> None:
        self._hurry()

    def text(self, name: str, content: str) -> None:
        self._hurry()

    def dataset(self, name: str, digest: str, facts: Mapping[str, Any]) -> None:
        self._hurry()

    def model(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._hurry()

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

    def _hurry(self) -> None:
        if not self._failures:  # while the destination is down, the pauses are on purpose
            self._wake.set()

    def _work(self) -> None:
        while True:
            closing = self._closing.is_set()
            self._waiting = 0
            try:
                self._mirror.advance()
            except Exception as error:
                self._failures += 1
                self._complain(_reason(error))
                if closing:
                    with contextlib.suppress(Exception):
                        self._mirror.conclude()
            else:
                self._failures = 0
                if self._mirror.opened:
                    self._opened.set()
                if self._mirror.refusals:
                    self._regret(self._mirror.refusals[0])
            if closing:
                return
            if not self._closing.is_set():
                self._wake.wait(min(60.0, self._every * 2**self._failures))
            self._wake.clear()

    def _regret(self, refusal: str) -> None:
        """Something was skipped for good; sending again would not help, so that advice isn't given."""
        if self._say is not None and not self._regretted:
            self._say(f"tracking at {self._destination.shown} did not take everything ({refusal})")
        self._regretted = True

    def _complain(self, trouble: str) -> None:
        if self._told or self._say is None:
            return
        self._told = True
        self._say(
            f"tracking at {self._destination.shown} {trouble}; the log of the run is complete, and "
            f"`smpo track sync {self._mirror.folder}` sends what is missing"
        )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"failed ({lines[0][:160]})"
