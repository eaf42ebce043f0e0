"""Images that look alike though their bytes differ: encoded anew, scaled, or saved in another format.

Only images of one prompt are compared, each with each: that finds what matters (votes on one pair that are counted as
votes on two), and needs no hashing that might miss. Tiny copies sort out nearly all; the rest are compared at 32 x 32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from smpo.data.audit.book import Book, Looks
from smpo.data.index import Progress

__all__ = ["lookalikes"]

COARSE = 14
"""Largest difference of any value of the tiny copies, of 255."""
FINE_MEAN, FINE_MOST = 4.0, 28.0
"""At 32 x 32: the mean difference, and the one that a hundredth exceeds."""
SIDE = 32
BLOCK = 512


def lookalikes(book: Book, progress: Progress | None = None) -> dict[str, str]:
    """Image id -> the first image that looks like it; images without a double aren't listed."""
    if book.picture is None:
        return {}
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for row in book.rows:
        for name in (row.first, row.second):
            if name in book.looks:
                groups[row.caption][name] = None
    leader: dict[str, str] = {}
    close = _Compare(book.picture)
    for done, names in enumerate(groups.values(), 1):
        for one, other in _candidates(list(names), book.looks):
            if _find(leader, one) != _find(leader, other) and close(one, other):
                leader[_find(leader, other)] = _find(leader, one)
        if progress is not None and done % 256 == 0:
            progress("comparing images", done, len(groups))
    return {name: _find(leader, name) for name in leader}


def _candidates(names: Sequence[str], looks: Looks) -> Iterator[tuple[str, str]]:
    """Pairs `(earlier, later)` whose tiny copies nearly agree."""
    if len(names) < 2:
        return
    prints = np.frombuffer(b"".join(looks.copy_of(name) for name in names), np.uint8)
    prints = prints.reshape(len(names), -1).astype(np.int16)  # [n, 192]
    means = prints.mean(axis=1)
    order = np.argsort(means, kind="stable")
    means = means[order]
    for start in range(len(names)):
        one = order[start]
        # Close copies have close means, so the sorted neighbours are enough.
        stop = int(np.searchsorted(means, means[start] + COARSE, side="right"))
        for first in range(start + 1, stop, BLOCK):
            others = order[first : min(first + BLOCK, stop)]
            near = np.abs(prints[others] - prints[one]).max(axis=1) <= COARSE
            for other in others[near]:
                early, late = sorted((int(one), int(other)))
                yield names[early], names[late]


class _Compare:
    def __init__(self, picture: Callable[[str], Image.Image]) -> None:
        @lru_cache(maxsize=512)
        def small(name: str) -> Any:
            resized = picture(name).resize((SIDE, SIDE), Image.Resampling.BOX)
            return np.asarray(resized).astype(np.float32)

        self._small = small

    def __call__(self, one: str, other: str) -> bool:
        difference = np.abs(self._small(one) - self._small(other))
        return bool(difference.mean() <= FINE_MEAN and np.quantile(difference, 0.99) <= FINE_MOST)


def _find(leader: dict[str, str], name: str) -> str:
    while name in leader:
        name = leader[name]
    return name
