"""Pictures that are too small, lose much to the crop, or differ within a pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from smpo.data.audit.book import Book, Look, Row
from smpo.data.audit.crops import windows_of
from smpo.data.audit.findings import SHOWN, Example, Expected, Finding, example_of
from smpo.data.buckets import Size, lost

__all__ = ["size_of", "sizes"]

CROP = 0.25
"""Share of a picture that may be cut away unremarked: in a square, 4:3 loses exactly that."""


def sizes(rows: Sequence[Row], book: Book, expected: Expected) -> Iterable[Finding]:
    first_row: dict[str, Row] = {}
    small: dict[str, None] = {}
    cut: dict[str, None] = {}
    for row, window in zip(rows, windows_of(rows, book, expected), strict=True):
        for name in (row.first, row.second):
            if name in book.looks:
                first_row.setdefault(name, row)
                small |= {name: None} if window is not None and _enlarged(book.looks[name], window) else {}
                cut |= {name: None} if _loss(book.looks[name], window or (1, 1)) > CROP + 1e-9 else {}

    def shown(names: Iterable[str]) -> list[Example]:
        return [
            Example(first_row[name].where, first_row[name].caption, (name,), size_of(book, name))
            for name in islice(names, SHOWN)
        ]

    if small:
        of = "its bucket" if expected.bucketed else f"the {expected.resolution} pixels of the model"
        yield Finding(
            "upscaled", f"an image smaller than {of}", "doubtful", len(small), len(first_row), "images",
            "It is enlarged, and the model learns from its blur.", shown(small),
        )  # fmt: skip
    if cut:
        meaning = "People judged the whole picture; the model is shown its middle."
        shape = "" if expected.bucketed else "square "
        yield Finding(
            "crop_loss", f"an image that loses more than {CROP:.0%} to the {shape}crop",
            "doubtful", len(cut), len(first_row), "images",
            meaning if expected.bucketed else f"{meaning} `data.buckets` cuts pairs near their own shape.", shown(cut),
        )  # fmt: skip
    unlike = [
        row for row in rows
        if row.first in book.looks and row.second in book.looks and _unlike(book, row.first, row.second)
    ]  # fmt: skip
    if unlike:
        yield Finding(
            "unequal_sizes", "a pair of images with different sizes or shapes", "doubtful", len(unlike), len(rows),
            "rows", "Size or shape may have decided the vote, and the two lose different parts to the crop.",
            [example_of(row, f"{size_of(book, row.first)} and {size_of(book, row.second)}") for row in unlike[:SHOWN]],
        )  # fmt: skip


def _loss(look: Look, window: Size) -> float:
    """Share of the picture that is cut away."""
    return float(lost(np.log(look.width / look.height), window))


def _enlarged(look: Look, window: Size) -> bool:
    return look.height < window[0] or look.width < window[1]


def _unlike(book: Book, first: str, second: str) -> bool:
    one, two = book.looks[first], book.looks[second]
    return (one.width, one.height) != (two.width, two.height)


def size_of(book: Book, name: str) -> str:
    return f"{book.looks[name].width}×{book.looks[name].height}"


# ------------------------------------------------------------------------------------------------ prompts
