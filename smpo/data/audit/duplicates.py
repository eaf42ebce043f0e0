"""The same pictures in other bytes: pairs that look alike, and pairs that were encoded anew."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smpo.data.audit.findings import Finding, example_of, side_by_side
from smpo.data.audit.groups import Groups, grouped
from smpo.data.audit.rows import SHOWN, AuditRows
from smpo.data.pairs.interning import Array

__all__ = ["duplicates"]


def duplicates(book: AuditRows, rows: Array, pairs: Groups, seen: Array) -> Iterable[Finding]:
    """`pairs` groups these rows by what was shown; `seen` `[I]` is what `near_duplicates` found."""
    if (seen == np.arange(len(seen))).all():
        return
    first, second = seen[book.first[rows]], seen[book.second[rows]]
    within = rows[first == second]
    if len(within):
        yield Finding(
            "lookalikes", "a pair of images that look the same", "doubtful", len(within), len(rows), "rows",
            "Their bytes differ, their pictures hardly do: the label can only be chance.",
            [example_of(row) for row in book.some(within)],
        )  # fmt: skip
    apart = np.flatnonzero(first != second)
    low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
    groups = grouped(book.caption[rows[apart]], low, high)
    again = groups.differ(pairs.number[apart])
    if not again.any():
        return

    def shown(which: Array) -> list[list[int]]:
        some = np.flatnonzero(which)[:SHOWN].tolist()
        return [rows[apart[groups.rows(group)]].tolist() for group in some]

    yield Finding(
        "re_encoded_pair", "a pair again, with its images encoded anew", "doubtful", int(again.sum()), len(groups),
        "pairs", "Counted as different pairs, since their bytes differ: votes aren't merged, and copies may end up on "
        "both sides of a split.",
        [side_by_side(book, group) for group in shown(again)],
    )  # fmt: skip
    winners = seen[book.winners(rows[apart])]
    against = again & groups.differ(winners, book.share[rows[apart]] != 0.5)
    if against.any():
        yield Finding(
            "re_encoded_contradiction", "encoded anew, with the opposite label", "doubtful", int(against.sum()),
            len(groups), "pairs", "Training would push both ways: merging can't see that it is the same pair.",
            [side_by_side(book, group) for group in shown(against)],
        )  # fmt: skip
