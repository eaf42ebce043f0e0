"""A destination that keeps things in memory, and a run that reports to it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.engine.monitoring.tracker import Ending, RunInfo, TrackerGroup
from smpo.tracking.jsonl import JsonlTracker, Point
from smpo.tracking.mirror import Refused
from smpo.tracking.mlflow_thread import MirrorTracker

About = Callable[..., RunInfo]


class Memory:
    """A destination that keeps things as MLflow does: nothing is deleted, a value sent twice is one."""

    shown = "memory"

    def __init__(self) -> None:
        self.values: dict[tuple[str, int, int], float] = {}
        self.events: list[Mapping[str, Any]] = []
        self.down = False
        self.opened = 0
        self.refuses = ""

    def _answer(self) -> None:
        if self.down:
            raise ConnectionError("connection refused")

    def open(self, start: Mapping[str, Any]) -> dict[str, Any]:
        self._answer()
        self.opened += 1
        return {"uri": "memory", "run_id": start["uid"]}

    def history(self, name: str) -> Iterable[tuple[int, int]]:
        return [(step, time) for key, step, time in self.values if key == name]

    def points(self, points: Sequence[Point]) -> None:
        self._answer()
        for point in points:
            for name, value in point.values.items():
                self.values[name, point.step, point.milliseconds] = value

    def event(self, event: Mapping[str, Any]) -> None:
        self._answer()
        if event["event"] == self.refuses:
            raise Refused("too odd")
        self.events.append(event)

    def curve(self, name: str = "loss") -> list[tuple[int, float]]:
        return sorted((step, value) for (key, step, _), value in self.values.items() if key == name)

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


class Run:
    """A run of so many steps that reports to a log and its mirror."""

    def __init__(self, folder: Path, memory: Memory, info: RunInfo, **settings: Any) -> None:
        self.said: list[str] = []
        settings = {"every": 0.02, "grace": 10.0, **settings}
        self.mirror = MirrorTracker(folder, memory, say=self.said.append, **settings)
        self.tee = TrackerGroup([JsonlTracker(folder), self.mirror], self.said.append)
        self.tee.start(info)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.tee.metrics({"loss": 1 / step, "margin": float(step)}, step)

    def kill(self) -> None:
        """The thread dies with its process, and the log has no last word."""
        assert self.mirror._thread is not None
        self.mirror._closing.set()
        self.mirror._wake.set()
        self.mirror._thread.join()

    def finish(self, status: Ending = "done") -> float:
        began = time.monotonic()
        self.tee.finish(status)
        return time.monotonic() - began


def exact(last: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, last + 1)]


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
