"""The protocol of trackers, and a group of them that can't stop a run that has begun (`TrackerGroup`).

Implementations are in `smpo.tracking`. Trackers are called on the main process only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from smpo.errors import RunError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Ending", "NoRecord", "RunInfo", "StepReport", "Tracker", "TrackerGroup"]

Ending = Literal["done", "failed", "stopped", "pruned"]
"""How a run ended: by itself, by an error, by a person or signal, by its sweep."""

PATIENCE = 5
"""Failures in a row after which a tracker isn't called any more."""


class NoRecord(RunError):
    """A run whose own log can't be begun; it shouldn't begin either."""


@dataclass(frozen=True)
class RunInfo:
    """The identity of a run, for trackers.

    `name` is the experiment, `run_id` our own name of the run inside it (`<spec hash>-<attempt>`), `folder`
    where it lives. `params` are the resolved leaves of the spec, flattened to dotted names. `step` is where a
    resumed run goes on: everything that was reported beyond it will be reported again, and so will what was
    reported at that step after its checkpoint: `logged` is the size of the log then, None where it isn't known, and
    `unwritten` are the lines that waited for a full disk then.
    """

    name: str
    run_id: str
    folder: Path
    spec_hash: str
    group_hash: str = ""
    attempt: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False
    step: int = 0
    logged: int | None = None
    unwritten: str = ""
    notes: str = ""
    commit: str = ""


@dataclass(frozen=True)
class StepReport:
    """One optimiser update: its metrics, how long it took, and the pairs it saw on all devices together."""

    step: int
    metrics: dict[str, float]
    seconds: float
    pairs: int
    timesteps_per_pair: int = 1
    """Timesteps at which each pair was looked at, each with a loss of its own."""
    skipped: int = 0
    """Attempts at this update that overflowed in fp16 and were repeated."""


class Tracker(Protocol):
    """Where a run reports. `start` comes first and `finish` last; in between, anything in any order.

    Reporting must be cheap: what is slow (a network, a database) belongs in a thread of the tracker. Paths
    are read after the call returned, so what they name must stay.
    """

    def start(self, info: RunInfo) -> None: ...

    def params(self, values: Mapping[str, Any]) -> None:
        """More settings, known only after the start (what `auto` became)."""
        ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def images(self, name: str, grid: Image.Image, step: int) -> None:
        """One picture of a series; the same name over steps shows how samples change."""
        ...

    def artefact(self, path: Path, folder: str = "") -> None:
        """A file or a directory worth keeping with the run, under `folder` in the tracker's store."""
        ...

    def text(self, name: str, content: str) -> None:
        """A small file that exists only as a string; `name` includes its ending."""
        ...

    def dataset(self, name: str, digest: str, facts: Mapping[str, Any]) -> None:
        """What was trained on: its content hash, and counts by reason."""
        ...

    def model(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """The finished model, as others load it; `facts` are labels such as the family and base weights."""
        ...

    def finish(self, status: Ending) -> None: ...


class TrackerGroup:
    """Several trackers as one, none of which can raise into training. Without any it logs nothing.

    A tracker that raises is named once through `say` and called again next time, since a full disk or a lost
    network may come back; after `PATIENCE` failures in a row only its `finish` is called, so that its run isn't shown
    as running for ever. One that can't even start isn't called again; its `NoRecord` ends the run. Interrupts pass
    through.
    """

    def __init__(self, trackers: Sequence[Tracker], say: Callable[[str], None] | None = None) -> None:
        self._seats = [_TrackerSlot(tracker) for tracker in trackers]
        self._say = say

    @property
    def unwritten(self) -> str:
        """Reports that the log among them hasn't got onto the disk, as lines; they belong into a checkpoint."""
        return "".join(getattr(seat.tracker, "unwritten", "") for seat in self._seats)

    def start(self, info: RunInfo) -> None:
        for seat in self._seats:
            self._call(seat, lambda tracker: tracker.start(info))
            seat.barred = seat.failures > 0

    def params(self, values: Mapping[str, Any]) -> None:
        self._all(lambda tracker: tracker.params(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._all(lambda tracker: tracker.metrics(values, step))

    def images(self, name: str, grid: Image.Image, step: int) -> None:
        self._all(lambda tracker: tracker.images(name, grid, step))

    def artefact(self, path: Path, folder: str = "") -> None:
        self._all(lambda tracker: tracker.artefact(path, folder))

    def text(self, name: str, content: str) -> None:
        self._all(lambda tracker: tracker.text(name, content))

    def dataset(self, name: str, digest: str, facts: Mapping[str, Any]) -> None:
        self._all(lambda tracker: tracker.dataset(name, digest, facts))

    def model(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._all(lambda tracker: tracker.model(folder, facts))

    def finish(self, status: Ending) -> None:
        for seat in self._seats:
            if not seat.barred:
                self._call(seat, lambda tracker: tracker.finish(status))

    def _all(self, act: Callable[[Tracker], None]) -> None:
        for seat in self._seats:
            if not seat.barred and seat.failures < PATIENCE:
                self._call(seat, act)

    def _call(self, seat: _TrackerSlot, act: Callable[[Tracker], None]) -> None:
        try:
            act(seat.tracker)
        except NoRecord:
            raise
        except Exception as error:
            seat.failures += 1
            if not seat.named:
                seat.named = True
                self._complain(seat.tracker, error)
        else:
            seat.failures = 0

    def _complain(self, tracker: Tracker, error: Exception) -> None:
        if self._say is None:
            return
        reason = str(error).strip().splitlines() or [type(error).__name__]
        try:
            self._say(f"{type(tracker).__name__} could not record this run ({reason[0]}); the run goes on")
        except Exception:  # a broken terminal is no reason to stop either
            self._say = None


@dataclass
class _TrackerSlot:
    """A tracker among others, and how it has behaved."""

    tracker: Tracker
    failures: int = 0
    named: bool = False
    barred: bool = False
