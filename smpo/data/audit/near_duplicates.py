"""Images that look alike though their bytes differ: encoded anew, scaled, or saved in another format.

Only images of one prompt are compared, each with each: that finds what matters (votes on one pair that are counted as
votes on two), and needs no hashing that might miss. Tiny copies sort out nearly all; the rest are compared at 32 x 32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from smpo.data.audit.images import Images
from smpo.data.audit.rows import AuditRows
from smpo.data.pairs.interning import Array
from smpo.data.progress import Progress

__all__ = ["near_duplicates"]

COARSE = 14
"""Largest difference of any value of the tiny copies, of 255."""
FINE_MEAN, FINE_MOST = 4.0, 28.0
"""At 32 x 32: the mean difference, and the one that a hundredth exceeds."""
SIDE = 32
BLOCK = 512


def near_duplicates(book: AuditRows, progress: Progress | None = None) -> Array:
    """`[I]`: for each image the number of the first one that looks like it; its own where nothing does."""
    leader: Array = np.arange(len(book.sizes), dtype=np.int32)
    if book.picture is None or book.images is None or not len(leader):
        return leader
    close = _Compare(book.images, book.picture)
    for names in _by_prompt(book, progress):
        for one, other in _candidates(names, book.images):
            if _find(leader, one) != _find(leader, other) and close(one, other):
                early, late = sorted((_find(leader, one), _find(leader, other)))
                leader[late] = early
    for number in np.flatnonzero(leader != np.arange(len(leader))).tolist():
        leader[number] = _find(leader, number)
    return leader


def _by_prompt(book: AuditRows, progress: Progress | None) -> Iterator[list[int]]:
    """Images that could be decoded, of each prompt that has several."""
    keys = []
    for side in (book.first, book.second):
        there = (side >= 0) & (book.sizes[side, 0] > 0)
        keys.append(book.caption[there].astype(np.int64) << 32 | side[there])
    shown = np.unique(np.concatenate(keys))
    starts = np.flatnonzero(np.diff(shown >> 32, prepend=-1))
    ends = np.append(starts[1:], len(shown))
    for done in range(len(starts)):
        if ends[done] - starts[done] > 1:
            found: list[int] = (shown[starts[done] : ends[done]] & 0xFFFFFFFF).tolist()
            yield found
        if progress is not None and done % 256 == 255:
            progress("comparing images", done + 1, len(starts))


def _candidates(numbers: Sequence[int], images: Images) -> Iterator[tuple[int, int]]:
    """Pairs `(earlier, later)` whose tiny copies nearly agree."""
    prints = images.copies(numbers).astype(np.int16)  # [n, 192]
    means = prints.mean(axis=1)
    order = np.argsort(means, kind="stable")
    means = means[order]
    for start in range(len(numbers)):
        one = order[start]
        # Close copies have close means, so the sorted neighbours are enough.
        stop = int(np.searchsorted(means, means[start] + COARSE, side="right"))
        for first in range(start + 1, stop, BLOCK):
            others = order[first : min(first + BLOCK, stop)]
            near = np.abs(prints[others] - prints[one]).max(axis=1) <= COARSE
            for other in others[near]:
                early, late = sorted((int(one), int(other)))
                yield numbers[early], numbers[late]


class _Compare:
    def __init__(self, images: Images, picture: Callable[[str], Image.Image]) -> None:
        @lru_cache(maxsize=512)
        def small(number: int) -> Any:
            resized = picture(images.name(number)).resize((SIDE, SIDE), Image.Resampling.BOX)
            return np.asarray(resized).astype(np.float32)

        self._small = small

    def __call__(self, one: int, other: int) -> bool:
        difference = np.abs(self._small(one) - self._small(other))
        return bool(difference.mean() <= FINE_MEAN and np.quantile(difference, 0.99) <= FINE_MOST)


def _find(leader: Array, number: int) -> int:
    while (next_one := int(leader[number])) != number:
        number = next_one
    return number
