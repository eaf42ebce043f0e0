"""How much of the pictures a model never sees: as squares, and with each pair in a bucket of about its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smpo.data.audit.rows import AuditRows
from smpo.data.pairs.interning import Array
from smpo.data.stream.buckets import lost, nearest

if TYPE_CHECKING:
    from smpo.data.audit.expected import Expected

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
    """`used`: whether the spec has `data.buckets`; else the buckets are those of `data.buckets: {}`."""

    used: bool
    lost: float
    lost_as_square: float
    buckets: list[Bucket]


def windows_of(book: AuditRows, rows: Array, expected: Expected) -> Array:
    """`[N, 2]`: the height and width to which training cuts each row's images; 0 where their own sizes or the model's
    aren't known."""
    windows = np.zeros((len(rows), 2), np.int32)
    if expected.resolution is not None:
        known = _known(book, rows)
        windows[known] = (
            np.array(expected.sizes)[nearest(_aspects(book, rows[known]).mean(1), expected.sizes)]
            if expected.bucketed
            else expected.resolution
        )
    return windows


def crops_of(book: AuditRows, rows: Array, expected: Expected) -> Crops | None:
    """None where sizes aren't known, or every picture is square already."""
    aspects = _aspects(book, rows[_known(book, rows)])  # [M, 2]
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


def _known(book: AuditRows, rows: Array) -> Array:
    """`[N]`: whether both images could be looked at."""
    found: Array = (book.sizes[book.first[rows], 0] > 0) & (book.sizes[book.second[rows], 0] > 0)
    return found


def _aspects(book: AuditRows, rows: Array) -> Array:
    """`[N, 2]`: log aspects of both images."""
    sizes = book.sizes[np.stack([book.first[rows], book.second[rows]], axis=1)]  # [N, 2, 2]
    found: Array = np.log(sizes[..., 0] / sizes[..., 1])
    return found
