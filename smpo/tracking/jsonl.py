"""The log in the run folder, which trackers mirror.

Two files. `metrics.jsonl` has one flat line per report (`{"step": 3, "time": 1760000000.125, "loss": 0.69}`),
ready for `pandas.read_json(..., lines=True)`. `events.jsonl` has the rest: the start, settings, pictures,
artefacts, the end. Every line is written at once, so a killed process loses no report; lines that a full disk
refuses wait in memory and are written first when there is room.

A resumed run repeats the steps after its checkpoint. Their earlier lines move to `metrics.rewound.jsonl`
before training goes on, so `metrics.jsonl` has each step once: no fork, no gap, and nothing destroyed.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.engine.monitoring.tracker import Ending, NoRecord, RunInfo
from smpo.runs.clock import Clock

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["JsonlTracker", "Point", "Tail", "read_events", "read_metrics", "read_rewound", "rewind"]

METRICS, EVENTS, REWOUND = "metrics.jsonl", "events.jsonl", "metrics.rewound.jsonl"
_RESERVED = ("step", "time")
_MOST = 64 << 20
"""Bytes that wait in memory for a full disk: about 100,000 reports."""
_OURS = re.compile(rb'\{"step": (\d+), "time": [0-9.]+, "')
"""How a line begins that `JsonlTracker` has written."""


@dataclass(frozen=True)
class Point:
    """One line of `metrics.jsonl`. `time` is in seconds since 1970, rounded to what trackers keep."""

    step: int
    time: float
    values: Mapping[str, float]

    @property
    def milliseconds(self) -> int:
        return round(self.time * 1000)


class JsonlTracker:
    """Writes the log. Put it first in a `TrackerGroup`: mirrors read what it has written.

    Raises `NoRecord` where the log can't be opened: training without a record is refused. Later, the first failure of
    the disk goes to `say`, and lines wait in memory; lines that still wait at the end raise `OSError`.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] | None = None) -> None:
        self._folder = folder.absolute()
        self._say = say
        self._files: dict[str, FileIO] = {}
        self._waiting: dict[str, bytearray] = {METRICS: bytearray(), EVENTS: bytearray()}
        self._torn: dict[str, bytes] = {METRICS: b"", EVENTS: b""}
        """The beginning, in the file, of a line whose rest is waiting."""
        self._refused = ""
        self._clock = Clock()

    @property
    def unwritten(self) -> str:
        """Reports that wait for room on the disk."""
        waiting = bytes(self._waiting[METRICS])
        return (self._torn[METRICS] + waiting if waiting else b"").decode()

    def start(self, info: RunInfo) -> None:
        try:
            self._start(info)
            if self._refused:
                raise OSError(self._refused)
        except OSError as error:
            raise NoRecord(
                f"the log can't be begun in {self._folder}: {error.strerror or error}",
                help="make room there, or let it be written to; a run that was begun goes on with `--resume`",
            ) from error

    def _start(self, info: RunInfo) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, EVENTS):
            _mend(self._folder / name)
        before = read_events(self._folder)
        times = (event["time"] for event in before if isinstance(event.get("time"), (int, float)))
        self._clock.not_before(max(filter(math.isfinite, times), default=0.0))
        earlier = next((event for event in before if event["event"] == "start"), {})
        if info.resumed:
            # Recorded before it is done: a crash in between repeats it, which is harmless. From `head` mirrors compute
            # how much of what they have read is unchanged.
            head = _split(self._folder / METRICS, info.step, info.logged)[2]
            self._event("rewind", step=info.step, head=head)
            if self._refused:
                raise OSError(self._refused)
            rewind(self._folder, info.step, info.logged)
            if info.unwritten:
                self._catch_up(info.unwritten)
        facts = {entry.name: getattr(info, entry.name) for entry in fields(info) if entry.name != "unwritten"}
        self._event("start", uid=earlier.get("uid") or uuid.uuid4().hex, **facts)

    def _catch_up(self, unwritten: str) -> None:
        """Lines that had waited when the checkpoint was written, but for those that got into the file after it."""
        path = self._folder / METRICS
        known = set(path.read_bytes().splitlines(keepends=True)) if path.exists() else set()
        for line in unwritten.encode().splitlines(keepends=True):
            if line not in known:
                self._waiting[METRICS] += line

    def params(self, values: Mapping[str, Any]) -> None:
        self._event("params", values=dict(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        line: dict[str, Any] = {"step": int(step), "time": self._now()}
        for name, value in values.items():
            line[f"metric/{name}" if name in _RESERVED else name] = _encoded(float(value))
        self._write(METRICS, line)

    def images(self, name: str, grid: Image.Image, step: int) -> None:
        file = Path("samples", _safe(name), f"{step:06d}.png")
        (self._folder / file).parent.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / file.with_suffix(".part.png")
        grid.save(fresh)
        fresh.replace(self._folder / file)  # mirrors read it from another thread
        self._event("image", name=_safe(name), step=int(step), file=file.as_posix())

    def artefact(self, path: Path, folder: str = "") -> None:
        self._event("artefact", file=self._short(path), folder=folder)

    def text(self, name: str, content: str) -> None:
        name = _safe(name)
        path = self._folder / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        within = Path(name).parent.as_posix()
        self._event("artefact", file=self._short(path), folder="" if within == "." else within)

    def dataset(self, name: str, digest: str, facts: Mapping[str, Any]) -> None:
        self._event("dataset", name=name, digest=digest, facts=dict(facts))

    def model(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._event("model", file=self._short(folder), facts=dict(facts))

    def finish(self, status: Ending) -> None:
        say, self._say = self._say, None  # nothing goes on from here
        self._event("finish", status=status)
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._refused:
            lost = sum(lines.count(b"\n") for lines in self._waiting.values())
            message = f"the last {lost} lines of the log in {self._folder} could not be written: {self._refused}"
            if say is None:
                raise OSError(message)
            say(message)

    def _now(self) -> float:
        return round(self._clock.now(), 3)

    def _event(self, event: str, **facts: Any) -> None:
        self._write(EVENTS, {"event": event, "time": self._now(), **facts})

    def _write(self, name: str, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
        waiting = self._waiting[name]
        if len(waiting) < _MOST:
            waiting += text.encode()
        refused = ""
        for each, lines in self._waiting.items():
            try:
                while lines:  # a disk that is nearly full takes a part
                    if each not in self._files:
                        self._files[each] = FileIO(self._folder / each, "a")
                    count = self._files[each].write(lines)
                    self._torn[each] = (self._torn[each] + lines[:count]).rpartition(b"\n")[2]
                    del lines[:count]
            except OSError as error:
                refused = error.strerror or str(error)
        if self._say is not None and bool(refused) != bool(self._refused):
            self._say(
                f"the log in {self._folder} can't be written ({refused}): it waits in memory, and the run goes on"
                if refused
                else "the log is whole again"
            )
        self._refused = refused

    def _short(self, path: Path) -> str:
        path = path.absolute()
        return (path.relative_to(self._folder) if path.is_relative_to(self._folder) else path).as_posix()


def read_metrics(folder: Path) -> list[Point]:
    """What was reported, in order; lines that can't be read (torn by a crash) are passed over."""
    return [point for line, _ in Tail(folder / METRICS).read(limit=-1) if (point := as_point(line)) is not None]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Everything that isn't a metric, in order: each has `event` and `time`."""
    return [line for line, _ in Tail(folder / EVENTS).read(limit=-1) if "event" in line]


def read_rewound(folder: Path) -> list[Point]:
    """Reports that a resume took back, of all resumes together."""
    return [point for line, _ in Tail(folder / REWOUND).read(limit=-1) if (point := as_point(line)) is not None]


def rewind(folder: Path, step: int, logged: int | None = None) -> int:
    """Take back every report beyond `step`, and those behind the first `logged` bytes; returns how many. Atomic, and
    safe to repeat."""
    kept, dropped, _ = _split(folder / METRICS, step, logged)
    if dropped:
        with (folder / REWOUND).open("ab") as file:
            file.writelines(dropped)
        fresh = (folder / METRICS).with_suffix(".tmp")
        fresh.write_bytes(b"".join(kept))
        fresh.replace(folder / METRICS)
    return len(dropped)


def _split(path: Path, step: int, logged: int | None) -> tuple[list[bytes], list[bytes], int]:
    """Lines up to `step` and within `logged`, the other lines, and the size of the untouched head of the file."""
    kept: list[bytes] = []
    dropped: list[bytes] = []
    head = end = 0
    for raw in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        end += len(raw)
        reported = _step(raw)
        # What was reported earlier and is beyond all the same had waited for a full disk.
        beyond = logged is not None and end > logged and (reported is None or reported >= step)
        if beyond or (reported is not None and reported > step):
            dropped.append(raw)
        else:
            kept.append(raw)
            head += len(raw) if not dropped else 0
    return kept, dropped, head


def _step(raw: bytes) -> int | None:
    """The step of a line; None where it isn't a report. Lines of this tracker aren't parsed: logs may be long."""
    if (match := _OURS.match(raw)) is not None and raw.endswith(b"}\n"):
        return int(match[1])
    point = as_point(_parsed(raw))
    return None if point is None else point.step


class Tail:
    """New complete lines of a growing file. The reader moves `offset`, once it has dealt with a line."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read(self, limit: int = 1 << 20) -> list[tuple[dict[str, Any], int]]:
        """Lines from `offset` on, each with the offset behind it; about `limit` bytes at once."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            chunk = file.read(limit)
            if b"\n" not in chunk:  # one line longer than the limit, or a line that isn't finished
                chunk += file.readline()
        lines: list[tuple[dict[str, Any], int]] = []
        position = self.offset
        for raw in chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True):
            position += len(raw)
            lines.append((_parsed(raw), position))
        return lines


def as_point(line: Mapping[str, Any]) -> Point | None:
    """A parsed line of `metrics.jsonl`, or None where it isn't one."""
    try:
        values = {name: float(value) for name, value in line.items() if name not in _RESERVED}
        return Point(step=int(line["step"]), time=float(line["time"]), values=values)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _mend(path: Path) -> None:
    """Cut off a last line that a crash left unfinished, lest the next be glued to it."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _encoded(value: float) -> float | str:
    """JSON has no NaN and no infinity; as strings every parser takes them, and `float` reads them back."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _safe(name: str) -> str:
    """A name that is a path inside a folder, and a key that trackers accept."""
    parts = [re.sub(r"[^A-Za-z0-9_.\- ]", "_", part) for part in name.split("/")]
    return "/".join(part for part in parts if part.strip(". ")) or "unnamed"
