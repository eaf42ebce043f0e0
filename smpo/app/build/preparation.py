"""Pairs are scored and encoded a portion of updates at a time, in the order in which training visits them.

A portion is `portions.PORTION` visits, rounded up to whole updates. Within it, images are read in the order of the
table: files are read forwards, and a row group once. With `runtime.prepare: ahead` a portion is prepared before its own
updates train, while threads decode the beginning of the next (as many pictures as fit into `prefetch.AHEAD` bytes);
with `first` all portions are, before the first update. The batches that networks see are the same, and so are the
results.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from smpo.app.build.labels import Labels
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.progress import Progress
from smpo.data.stream.loader import PairLoader

__all__ = ["Preparation"]


class Preparation:
    """What updates need is there when `until` has been called for them. Collective: all processes of a run call it for
    the same updates in the same order.

    `together`: updates of a portion (`portions.updates_together`). `clock` times `score` and `encode`; `progress` is
    shown."""

    def __init__(
        self,
        loader: PairLoader,
        labels: Labels,
        *,
        steps: int,
        together: int,
        clock: Callable[[str], AbstractContextManager[None]],
        progress: Progress | None = None,
        team: WorkSplit = SINGLE_PROCESS,
    ) -> None:
        self._loader, self._labels, self._steps = loader, labels, steps
        self._clock, self._progress, self._team = clock, progress, team
        self._updates = together
        self._done: set[int] = set()

    def label(self, step: int) -> None:
        """Score and smooth what the portion of update `step` (counted from 0) visits."""
        with self._clock("score"):
            self._labels.ensure(self._visited(step // self._updates))

    def until(self, step: int) -> None:
        """Score and encode the portion of update `step`; at once where that was done before. Then begin to decode the
        next one. Raises `RunError` for pictures that can't be read and for numbers that aren't finite: what came before
        is kept."""
        number = step // self._updates
        if number in self._done:
            return
        self._prepare(number)
        if (number + 1) * self._updates < self._steps:
            self._begin(number + 1)
            self._labels.rest()
        else:
            self._labels.release()

    def all(self) -> None:
        """The same for every update."""
        for number in range(-(-self._steps // self._updates)):
            self._prepare(number)
        self._labels.release()

    def _prepare(self, number: int) -> None:
        first, stop = self._range(number)
        self.label(first)
        with self._clock("encode"):
            self._loader.prepare(stop, start=first, progress=self._progress, team=self._team)
        self._done.add(number)

    def _begin(self, number: int) -> None:
        first, stop = self._range(number)
        if not self._labels.begin(self._visited(number)):
            self._loader.begin(stop, start=first, team=self._team)

    def _visited(self, number: int) -> list[int]:
        first, stop = self._range(number)
        return self._loader.visited(stop, start=first)

    def _range(self, number: int) -> tuple[int, int]:
        return number * self._updates, min((number + 1) * self._updates, self._steps)
