"""Copies the log of a run folder to a `Destination`.

The log on disk is the queue: it needs no memory, it survives a crash, and it has the records of an outage when the
server returns. `Mirror.advance` sends the new records, which at the start are all of them: a run that is sent after
the fact takes the same way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from smpo.runs.lock import read_lock as read_json
from smpo.tracking.jsonl import EVENTS, METRICS, Point, Tail, as_point, read_rewound

__all__ = ["Destination", "Mirror", "Refused", "read_place", "write_place"]

PLACE = "tracking.json"
LINES_AT_ONCE = 50
"""Reports per request: about as many values as MLflow takes at once. A request costs as much as a hundred values."""


class Refused(Exception):
    """The destination will never take this record; the log goes on with the next."""


class Destination(Protocol):
    """A store of runs. Any exception but `Refused` is taken for an outage."""

    shown: str
    """Its address, for people."""

    def open(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """Find or create the run of the `start` event; returns its place (address and ids)."""
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
        self.spent = 0.0
        """Processor seconds of this thread that sending values has taken."""
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
        """Send all records of the log that weren't sent before. Errors of the destination are raised; records that were
        sent until then count as sent."""
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
            kind = event.get("event")
            if kind == "image":
                self._drawn.add((event["name"], event["step"]))
            elif kind == "rewind":
                self._redrawn |= {drawn for drawn in self._drawn if drawn[1] >= event["step"]}
            self.ended = kind == "finish"
            self._events.offset = offset

    def conclude(self) -> None:
        """Send the end of the run out of turn: a run that is over must not stay running for want of a picture."""
        *_, (event, _) = self._events.read(limit=-1) or [({}, 0)]
        if self.opened and event.get("event") == "finish":
            self._destination.event(event)

    def _open(self) -> bool:
        events = [event for event, _ in self._events.read(limit=-1)]
        start = next((event for event in events if event.get("event") == "start"), None)
        if start is None:
            return False
        for stale in self.folder.glob(f"{PLACE}.*.tmp"):  # of a process that was killed while it wrote
            stale.unlink(missing_ok=True)
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
            self.folder, {**place, "events": self._done, "metrics": self._metrics.offset, "rewinds": len(rewinds)}
        )
        self.opened = True
        return True

    def _taken_back(self) -> set[tuple[str, int]]:
        """Values (name, step) that a resume took back from the log when the destination had them already.

        The resumed run repeats them, bit for bit; sending the repetition would draw these steps twice.
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
        began = time.thread_time()
        try:
            self._destination.points(points)
        except Refused as error:
            self.refusals.append(str(error))
        finally:
            self.spent += time.thread_time() - began
        self.sent += sum(len(point.values) for point in points)
        self._metrics.offset = lines[-1][1]
        write_place(self.folder, {"metrics": self._metrics.offset})

    def _send_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "image" and (event["name"], event["step"]) in self._redrawn:
            return
        try:
            self._destination.event(event)
        except (Refused, KeyError, TypeError, ValueError) as error:
            # All but the first are errors of a damaged record, which would hold up the rest.
            self.refusals.append(f"{event.get('event')}: {error}")


def read_place(folder: Path) -> dict[str, Any]:
    """Where a run is mirrored (`tracking.json`): address, ids, how far it got. Empty when unknown."""
    return read_json(folder / PLACE)


def write_place(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to `tracking.json`; a reader sees the old file or the new one."""
    path = folder / PLACE
    fresh = path.with_name(f"{PLACE}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps({**read_place(folder), **facts}, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
