"""Rows that can't be used, ties, and pairs that are there more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from smpo.data.audit.book import Row
from smpo.data.audit.findings import SHOWN, Finding, example_of, example_of_pair, winner_of
from smpo.data.index import CHOICES, DEFECTS

__all__ = ["by_pair", "defects", "repeats", "ties"]


def defects(rows: Sequence[Row]) -> Iterable[Finding]:
    by_reason: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.defect:
            by_reason[row.defect].append(row)
    for name, concerned in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        chosen = name in CHOICES
        yield Finding(
            name=name,
            title=(CHOICES | DEFECTS)[name],
            weight="plain" if chosen else "lost",
            count=len(concerned),
            of=len(rows),
            unit="rows",
            meaning="Left out as the spec asks."
            if chosen
            else "Training drops the row: both images and the vote.",
            examples=[example_of(row, row.detail) for row in concerned[:SHOWN]],
        )


def ties(rows: Sequence[Row]) -> Iterable[Finding]:
    tied = [row for row in rows if row.share == 0.5]
    if tied:
        yield Finding(
            "tie", "a tie", "plain", len(tied), len(rows), "rows",
            "`ties: drop` leaves out pairs without a majority; `ties: keep` shows them with p = 1/2.",
            [example_of(row) for row in tied[:SHOWN]],
        )  # fmt: skip


def by_pair(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    pairs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        pairs[row.pair].append(row)
    return pairs


def repeats(votes: Mapping[tuple[str, str, str], list[Row]], rows: int) -> Iterable[Finding]:
    """The same prompt and the same two files in more than one row."""
    repeated = [some for some in votes.values() if len(some) > 1]
    if not repeated:
        return
    yield Finding(
        "repeated_pair", "a pair in several rows", "plain", len(repeated), len(votes), "pairs",
        "Several people's votes, or a copy. `votes: merge` counts them as one pair with a share of votes.",
        [example_of_pair(some) for some in repeated[:SHOWN]],
    )  # fmt: skip
    turned = [some for some in repeated if len({row.first for row in some}) > 1]
    if turned:
        yield Finding(
            "both_orders", "a pair in both orders", "plain", len(turned), len(votes), "pairs",
            "Harmless when votes are merged: the order is taken into account.",
            [example_of_pair(some) for some in turned[:SHOWN]],
        )  # fmt: skip
    split = [some for some in repeated if _disagree(some)]
    if split:
        yield Finding(
            "contradictory_votes", "a pair whose votes contradict each other", "doubtful", len(split), len(votes),
            "pairs", "`votes: separate` trains on both directions; merged, the share says how divided people were.",
            [example_of_pair(some) for some in split[:SHOWN]],
        )  # fmt: skip


def _disagree(rows: Sequence[Row]) -> bool:
    winners = {winner_of(row) for row in rows if row.share != 0.5}
    return len(winners) > 1
