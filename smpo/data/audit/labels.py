"""Rows that can't be used, ties, and pairs that are there more than once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smpo.data.audit.findings import Example, Finding, example_of, example_of_pair
from smpo.data.audit.groups import Groups
from smpo.data.audit.rows import REASONS, SHOWN, AuditRows
from smpo.data.pairs.index import CHOICES, DEFECTS
from smpo.data.pairs.interning import Array

__all__ = ["defects", "repeats", "ties"]


def defects(book: AuditRows) -> Iterable[Finding]:
    counts = np.bincount(book.defect, minlength=len(REASONS))
    met = sorted(np.flatnonzero(counts[1:]) + 1, key=lambda n: (-counts[n], int(np.argmax(book.defect == n))))
    for number in met:
        name = REASONS[number]
        chosen = name in CHOICES
        yield Finding(
            name=name,
            title=(CHOICES | DEFECTS)[name],
            weight="plain" if chosen else "lost",
            count=int(counts[number]),
            of=len(book),
            unit="rows",
            meaning="Left out as the spec asks." if chosen else "Training drops the row: both images and the vote.",
            examples=[example_of(row, row.detail) for row in book.some(np.flatnonzero(book.defect == number))],
        )


def ties(book: AuditRows, rows: Array) -> Iterable[Finding]:
    tied = rows[book.share[rows] == 0.5]
    if len(tied):
        yield Finding(
            "tie", "a tie", "plain", len(tied), len(rows), "rows",
            "`ties: drop` leaves out pairs without a majority; `ties: keep` shows them with p = 1/2.",
            [example_of(row) for row in book.some(tied)],
        )  # fmt: skip


def repeats(book: AuditRows, rows: Array, pairs: Groups) -> Iterable[Finding]:
    """The same prompt and the same two files in more than one row. `pairs` groups these rows."""
    repeated = pairs.counts > 1
    if not repeated.any():
        return

    def shown(which: Array) -> list[Example]:
        some = np.flatnonzero(which)[:SHOWN].tolist()
        return [example_of_pair(book, rows[pairs.rows(pair)].tolist()) for pair in some]

    yield Finding(
        "repeated_pair", "a pair in several rows", "plain", int(repeated.sum()), len(pairs), "pairs",
        "Several people's votes, or a copy. `votes: merge` counts them as one pair with a share of votes.",
        shown(repeated),
    )  # fmt: skip
    turned = pairs.differ(book.first[rows])
    if turned.any():
        yield Finding(
            "both_orders", "a pair in both orders", "plain", int(turned.sum()), len(pairs), "pairs",
            "Harmless when votes are merged: the order is taken into account.", shown(turned),
        )  # fmt: skip
    split = pairs.differ(book.winners(rows), book.share[rows] != 0.5)
    if split.any():
        yield Finding(
            "contradictory_votes", "a pair whose votes contradict each other", "doubtful", int(split.sum()),
            len(pairs), "pairs", "`votes: separate` trains on both directions; merged, the share says how divided "
            "people were.", shown(split),
        )  # fmt: skip
