"""Work on pictures that threads do ahead of a network: decode, preprocess, place.

Pillow and numpy release Python's lock while they decode and resize, so threads do here what processes would, without
start-up, pickling, or a fork of a process that uses a GPU. Results come in the order of the work, and so does an error:
as without threads, whatever comes before it is done.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from PIL import Image

if TYPE_CHECKING:
    from smpo.kinds import PairTable, Picture

__all__ = ["AHEAD", "Prefetch", "picture_of"]

AHEAD = 512 << 20
"""Bytes of results that wait for their network, about: work beyond them is begun only when some are taken."""

_MOST = 4096
"""Results that wait, however small they are."""

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Prefetch(Generic[K, R]):
    """`work(item)` for each of `items`, by `workers` threads, in order and a bounded number ahead; begins at once.

    `least` results may always wait; more as long as they take fewer than `AHEAD` bytes together. Without workers
    nothing is begun before it is taken.
    """

    def __init__(self, items: Sequence[K], work: Callable[[K], R], *, workers: int, least: int = 2) -> None:
        self.items = items
        self._work, self._next = work, 0
        self._pool = _pool(workers) if workers else None
        self._least = self._room = max(least, 2 * workers)
        self._begun: deque[tuple[K, Future[R]]] = deque()
        self._fill()

    @property
    def waiting(self) -> int:
        """Pieces of work that were begun and not taken: done, being done, or queued."""
        return len(self._begun)

    def take(self, items: Sequence[K]) -> list[R]:
        """The results of the next items, which come in the constructor's order; another item is worked on here and
        now. Raises what `work` raised."""
        return [self._one(item) for item in items]

    def close(self) -> None:
        """Drop what was begun and not taken."""
        self._next = len(self.items)
        for _, future in self._begun:
            future.cancel()
        self._begun.clear()

    def _one(self, item: K) -> R:
        if not self._begun or self._begun[0][0] != item:
            return self._work(item)
        found = self._begun.popleft()[1].result()
        self._room = max(self._least, min(_MOST, AHEAD // max(1, _size(found))))
        self._fill()
        return found

    def _fill(self) -> None:
        while self._pool is not None and len(self._begun) < self._room and self._next < len(self.items):
            item = self.items[self._next]
            self._next += 1
            self._begun.append((item, self._pool.submit(self._work, item)))


def picture_of(table: PairTable) -> Callable[[str], Picture]:
    """`table.picture`, for any number of threads: one at a time unless the table is made for more."""
    if getattr(table, "threads", False):
        return table.picture
    lock = threading.Lock()

    def one_at_a_time(image: str) -> Picture:
        with lock:
            return table.picture(image)

    return one_at_a_time


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """One for the process: threads without work cost nothing."""
    return ThreadPoolExecutor(workers, thread_name_prefix="pictures")


if hasattr(os, "register_at_fork"):  # a forked process has the object and none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _size(result: Any) -> int:
    """Bytes of a result: a tensor, an array, a picture, or several of them."""
    if isinstance(result, dict):
        return sum(map(_size, result.values()))
    if isinstance(result, str | bytes):
        return len(result)
    if isinstance(result, tuple):
        return sum(map(_size, result))
    if hasattr(result, "nbytes"):
        return int(result.nbytes)
    return 3 * result.width * result.height if isinstance(result, Image.Image) else 1
