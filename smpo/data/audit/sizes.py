"""Pictures that are too small, lose much to the crop, or differ within a pair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from smpo.data.audit.crops import windows_of
from smpo.data.audit.expected import Expected
from smpo.data.audit.findings import Example, Finding, example_of
from smpo.data.audit.rows import SHOWN, AuditRows
from smpo.data.pairs.interning import Array

__all__ = ["sizes"]

CROP = 0.25
"""Share of a picture that may be cut away unremarked: in a square, 4:3 loses exactly that."""


def sizes(book: AuditRows, rows: Array, expected: Expected) -> Iterable[Finding]:
    images = np.stack([book.first[rows], book.second[rows]], axis=1).ravel()  # [2N], row after row
    windows = np.repeat(windows_of(book, rows, expected), 2, axis=0)
    looked = np.flatnonzero(book.sizes[images, 0] > 0)
    images, windows, shown_in = images[looked], windows[looked], rows[looked // 2]
    of = len(np.unique(images))
    small = _met(images, np.any(book.sizes[images, ::-1] < windows, axis=1))
    cut = _met(images, _loss(book.sizes[images], windows) > CROP + 1e-9)

    def shown(some: Array) -> list[Example]:
        found = zip(images[some[:SHOWN]].tolist(), book.some(shown_in[some]), strict=True)
        return [Example(row.where, row.caption, (book.name(image),), book.size_of(image)) for image, row in found]

    if len(small):
        which = "its bucket" if expected.bucketed else f"the {expected.resolution} pixels of the model"
        yield Finding(
            "upscaled", f"an image smaller than {which}", "doubtful", len(small), of, "images",
            "It is enlarged, and the model learns from its blur.", shown(small),
        )  # fmt: skip
    if len(cut):
        meaning = "People judged the whole picture; the model is shown its middle."
        shape = "" if expected.bucketed else "square "
        yield Finding(
            "crop_loss", f"an image that loses more than {CROP:.0%} to the {shape}crop", "doubtful", len(cut), of,
            "images",
            meaning if expected.bucketed else f"{meaning} `data.buckets` cuts pairs near their own shape.", shown(cut),
        )  # fmt: skip
    both = book.sizes[book.first[rows]], book.sizes[book.second[rows]]
    unlike = rows[(both[0] != both[1]).any(axis=1) & (both[0][:, 0] > 0) & (both[1][:, 0] > 0)]
    if len(unlike):
        some = [int(row) for row in unlike[:SHOWN]]
        told = [f"{book.size_of(book.first[row])} and {book.size_of(book.second[row])}" for row in some]
        yield Finding(
            "unequal_sizes", "a pair of images with different sizes or shapes", "doubtful", len(unlike), len(rows),
            "rows", "Size or shape may have decided the vote, and the two lose different parts to the crop.",
            [example_of(book[row], note) for row, note in zip(some, told, strict=True)],
        )  # fmt: skip


def _met(images: Array, concerned: Any) -> Array:
    """Where each concerned image is met first, in order."""
    where = np.flatnonzero(concerned)
    found: Array = np.sort(where[np.unique(images[where], return_index=True)[1]])
    return found


def _loss(size: Array, windows: Array) -> Array:
    """`[N]`: share of a picture that is cut away when it is scaled to cover the window, or a square where none is
    known: 1 - exp(-|difference of log aspects|)."""
    shape = np.log(np.where(windows[:, 1] > 0, windows[:, 1] / np.maximum(windows[:, 0], 1), 1.0))
    found: Array = 1 - np.exp(-np.abs(np.log(size[:, 0] / size[:, 1]) - shape))
    return found
