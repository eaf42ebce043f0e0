"""Copies the log of a run folder somewhere else, behind the back of training.

The log on disk is the queue: it needs no memory, it survives a crash, and what a lost server missed is still
there when the server returns. A thread reads what is new every few seconds and hands it to a `Destination`;
when that fails it keeps its place and tries again later, less and less often. Replaying the whole log at once
(`Mirror.advance`) is how a run is sent after the fact, so both ways of arriving are one.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from smpo.engine.events import Ending, RunInfo
from smpo.tracking.jsonl import EVENTS, METRICS, Point, Tail, as_point, read_rewound

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Destination", "Mirror", "MirrorTracker", "Refused", "read_place", "write_place"]

PLACE = "tracking.json"
LINES_AT_ONCE = 25
"""Reports per request: some hundred values, so that progress is kept in small steps."""


class Refused(Exception):
    """The destination will never take this record; the log goes on with the next."""


class Destination(Protocol):
    """Somewhere to copy a log to. Any exception but `Refused` means: not now, try again."""

    shown: str
    """Its address, for people."""

    def open(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """Find or create the run that the `start` event describes; returns its place (address and ids)."""
        ...

    def history(self, name: str) -> Iterable[tuple[int, int]]:
        """Step and timestamp (in milliseconds) of every value it has of this metric."""
        ...

    def points(self, points: Sequence[Point]) -> None: ...

    def event(self, event: Mapping[str, Any]) -> None: ...


class Mirror:
    """One log and one destination, and how far the copy has come."""

    def __init__(self, folder: Path, destination: Destination) -> None:
        self.folder = folder
        self.opened = False
        self.ended = False
        """Whether the last that was sent was the end of the run."""
        self.sent = 0
        """Values sent by this object."""
        self.refusals: list[str] = []
        self._destination = destination
        self._metrics = Tail(folder / METRICS)
        self._events = Tail(folder / EVENTS)
        self._done = 0
        """Events up to this offset are at the destination already."""
        self._taken: set[tuple[str, int]] = set()
        self._drawn: set[tuple[str, int]] = set()
        self._redrawn: set[tuple[str, int]] = set()

    def advance(self) -> None:
        """Send everything that is on disk and wasn't sent before.

        Raises whatever the destination raised; what was sent until then counts as sent.
        """
        if not self.opened and not self._open():
            return
        while lines := self._metrics.read():
            for first in range(0, len(lines), LINES_AT_ONCE):
                self._send_points(lines[first : first + LINES_AT_ONCE])
        for event, offset in self._events.read(limit=-1):
            if offset > self._done:
                self._send_event(event)
                self._done = offset
                write_place(self.folder, {"events": offset})
            self._note(event)
            self._events.offset = offset

    def conclude(self) -> None:
        """Send the end of the run out of turn, when something before it can't be sent: a run that is over
        should not be shown as running because a picture is missing.
        """
        *_, (event, _) = self._events.read(limit=-1) or [({}, 0)]
        if self.opened and event.get("event") == "finish":
            self._destination.event(event)

    def _open(self) -> bool:
        events = [event for event, _ in self._events.read(limit=-1)]
        start = next((event for event in events if event.get("event") == "start"), None)
        if start is None:
            return False
        place = self._destination.open(start)
        earlier = read_place(self.folder)
        if any(earlier.get(key) != value for key, value in place.items()):
            earlier = {}  # this log was last copied to another store, which has what this one hasn't
        self._done = int(earlier.get("events", 0))
        rewinds = [event for event in events if event.get("event") == "rewind"]
        unseen = rewinds[int(earlier.get("rewinds", 0)) :]
        heads = [int(event["head"]) for event in unseen]
        self._metrics.offset = min([int(earlier.get("metrics", 0)), *heads])
        self._taken = self._taken_back()
        write_place(
            self.folder,
            {**place, "events": self._done, "metrics": self._metrics.offset, "rewinds": len(rewinds)},
        )
        self.opened = True
        return True

    def _taken_back(self) -> set[tuple[str, int]]:
        """Values (name, step) that a resume took back from the log when the destination had them already.

        Nothing can be deleted there. A resumed run repeats these steps and arrives at the same values, so not
        sending the repetition leaves one curve; sending it would draw every such step twice.
        """
        gone: dict[str, set[tuple[int, int]]] = {}
        for point in read_rewound(self.folder):
            for name in point.values:
                gone.setdefault(name, set()).add((point.step, point.milliseconds))
        return {
            (name, step)
            for name, values in gone.items()
            for step, _ in values.intersection(self._destination.history(name))
        }

    def _send_points(self, lines: Sequence[tuple[dict[str, Any], int]]) -> None:
        points = []
        for line, _ in lines:
            if (point := as_point(line)) is not None:
                fresh = {k: v for k, v in point.values.items() if (k, point.step) not in self._taken}
                points.append(Point(point.step, point.time, fresh))
        try:
            self._destination.points(points)
        except Refused as error:
            self.refusals.append(str(error))
        self.sent += sum(len(point.values) for point in points)
        self._metrics.offset = lines[-1][1]
        write_place(self.folder, {"metrics": self._metrics.offset})

    def _send_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "image" and (event["name"], event["step"]) in self._redrawn:
            return
        try:
            self._destination.event(event)
        except (Refused, KeyError, TypeError, ValueError) as error:
            # The latter mean a record that makes no sense to it: trying again can't help, and would hold up
            # the rest.
            self.refusals.append(f"{event.get('event')}: {error}")

    def _note(self, event: Mapping[str, Any]) -> None:
        what = event.get("event")
        if what == "image":
            self._drawn.add((event["name"], event["step"]))
        elif what == "rewind":
            self._redrawn |= {drawn for drawn in self._drawn if drawn[1] > event["step"]}
        self.ended = what == "finish"


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
        burst: int = 200,
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


def read_place(folder: Path) -> dict[str, Any]:
    """Where a run is mirrored (`tracking.json`): address, ids, and how far its events got. Empty when
    unknown.
    """
    try:
        place = json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return place if isinstance(place, dict) else {}


def write_place(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to `tracking.json`; a reader sees the old file or the new one."""
    path = folder / PLACE
    fresh = path.with_name(f"{PLACE}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps({**read_place(folder), **facts}, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"can't be reached ({lines[0][:160]})"
