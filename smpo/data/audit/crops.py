"""How much of the pictures a model never sees: as squares, and with each pair in a bucket of about its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smpo.data.audit.book import Book, Row
from smpo.data.buckets import Numbers, Size, lost, nearest

if TYPE_CHECKING:
    from smpo.data.audit.findings import Expected

__all__ = ["Bucket", "Crops", "crops_of", "windows_of"]


@dataclass(frozen=True)
class Bucket:
    """Pairs that a size fits best, and the mean share of their images that is cut away: by it, and by a square."""

    height: int
    width: int
    pairs: int
    lost: float
    lost_as_square: float


@dataclass(frozen=True)
class Crops:
    """`used`: whether the spec asks for buckets; else they are what `data.buckets: {}` would bring."""

    used: bool
    lost: float
    lost_as_square: float
    buckets: list[Bucket]


def windows_of(rows: Sequence[Row], book: Book, expected: Expected) -> list[Size | None]:
    """The size to which training cuts each row's images; None where their own sizes or the model's aren't known."""
    side = expected.resolution
    if side is None:
        return [None] * len(rows)
    known = [row.first in book.looks and row.second in book.looks for row in rows]
    if not expected.bucketed:
        return [(side, side) if one else None for one in known]
    numbers = iter(_fitting(rows, book, expected).tolist())
    return [expected.sizes[next(numbers)] if one else None for one in known]


def crops_of(rows: Sequence[Row], book: Book, expected: Expected) -> Crops | None:
    """None where sizes aren't known, or every picture is square already."""
    aspects = _aspects(rows, book)  # [M, 2]
    if not expected.sizes or not len(aspects) or not aspects.any():
        return None
    number = nearest(aspects.mean(1), expected.sizes)
    square = lost(aspects, (1, 1)).mean(1)
    by_bucket = np.empty(len(aspects))
    found = []
    for i in np.unique(number).tolist():
        here = number == i
        by_bucket[here] = lost(aspects[here], expected.sizes[i]).mean(1)
        height, width = expected.sizes[i]
        means = float(by_bucket[here].mean()), float(square[here].mean())
        found.append(Bucket(height, width, int(here.sum()), *means))
    return Crops(expected.bucketed, float(by_bucket.mean()), float(square.mean()), found)


def _fitting(rows: Sequence[Row], book: Book, expected: Expected) -> Numbers:
    return nearest(_aspects(rows, book).mean(1), expected.sizes)


def _aspects(rows: Sequence[Row], book: Book) -> Numbers:
    """`[M, 2]`: log aspects of both images, of rows whose images could both be looked at."""
    looks = [
        (book.looks[row.first], book.looks[row.second])
        for row in rows
        if row.first in book.looks and row.second in book.looks
    ]
    sizes = np.array([[(one.width, one.height) for one in both] for both in looks]).reshape(-1, 2, 2)
    found: Numbers = np.log(sizes[..., 0] / sizes[..., 1])
    return found
