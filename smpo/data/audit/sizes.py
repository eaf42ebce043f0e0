"""Pictures that are too small, lose much to the crop, or differ within a pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smpo.data.audit.book import Book, Row
from smpo.data.audit.findings import SHOWN, Example, Expected, Finding, example_of

__all__ = ["size_of", "sizes"]

CROP = 0.25
"""Share of a picture that may be cut away unremarked: 4:3 loses exactly that."""


def sizes(rows: Sequence[Row], book: Book, expected: Expected) -> Iterable[Finding]:
    first_row: dict[str, Row] = {}
    for row in rows:
        for name in (row.first, row.second):
            if name in book.looks:
                first_row.setdefault(name, row)
    side = expected.resolution

    def shown(names: Sequence[str]) -> list[Example]:
        return [
            Example(first_row[name].where, first_row[name].caption, (name,), size_of(book, name))
            for name in names[:SHOWN]
        ]

    if side is not None:
        small = [name for name in first_row if min(book.looks[name].width, book.looks[name].height) < side]
        if small:
            yield Finding(
                "upscaled", f"an image smaller than the {side} pixels of the model", "doubtful", len(small),
                len(first_row), "images", "It is enlarged, and the model learns from its blur.", shown(small),
            )  # fmt: skip
    cut = [name for name in first_row if _loss(book, name) > CROP]
    if cut:
        yield Finding(
            "crop_loss", f"an image that loses more than {CROP:.0%} to the square crop", "doubtful", len(cut),
            len(first_row), "images",
            "People judged the whole picture; the model is shown its middle.", shown(cut),
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


def _loss(book: Book, name: str) -> float:
    look = book.looks[name]
    return 1 - min(look.width, look.height) / max(look.width, look.height)


def _unlike(book: Book, first: str, second: str) -> bool:
    one, two = book.looks[first], book.looks[second]
    return (one.width, one.height) != (two.width, two.height)


def size_of(book: Book, name: str) -> str:
    return f"{book.looks[name].width}×{book.looks[name].height}"


# ------------------------------------------------------------------------------------------------ prompts
