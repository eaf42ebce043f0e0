"""The result of an audit: findings with examples, and the report that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from smpo.data.audit.crops import Crops
from smpo.data.audit.margins import Margins
from smpo.data.audit.rows import AuditRows, Row

__all__ = ["Audit", "Example", "Finding", "example_of", "example_of_pair", "side_by_side"]

Weight = Literal["lost", "doubtful", "plain"]

MANY = 100
"""Rows of one pair that are looked through for different files."""


@dataclass(frozen=True)
class Example:
    where: str
    prompt: str
    images: tuple[str, ...] = ()
    """Content ids; the preferred one first, where there is a preference."""
    note: str = ""
    preferred: bool = False
    """Whether the first image was preferred."""


@dataclass(frozen=True)
class Finding:
    """`count` of `of` `unit` are concerned; `examples` are the first few (`SHOWN`). `lost` rows are never trained on,
    `doubtful` ones are, `plain` is worth knowing."""

    name: str
    title: str
    weight: Weight
    count: int
    of: int
    unit: str
    meaning: str
    examples: list[Example] = field(default_factory=list)


@dataclass
class Audit:
    """Everything that was found. `facts` are counts; `charts` are bars by name; `noise` is what the votes themselves
    say about how often one is wrong."""

    facts: dict[str, Any]
    findings: list[Finding]
    charts: dict[str, list[tuple[str, int]]]
    noise: dict[str, Any]
    crops: Crops | None = None
    """What is cut away, as squares and with buckets ; None where all is square or nothing is known."""
    margins: Margins | None = None
    disputed: list[Example] = field(default_factory=list)
    """Pairs in which the reward contradicts the label most."""
    notes: list[str] = field(default_factory=list)
    """What couldn't be looked at, and why."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def example_of(row: Row, note: str = "") -> Example:
    images = (row.first, row.second)
    if row.share is not None and row.share < 0.5:
        images = (row.second, row.first)
    preferred = row.share is not None and row.share != 0.5
    return Example(row.where, row.caption, tuple(name for name in images if name), note, preferred)


def example_of_pair(book: AuditRows, numbers: Sequence[int]) -> Example:
    """Several rows on one pair."""
    row = book[numbers[0]]
    turned = book.first[numbers] != book.first[numbers[0]]
    share, votes = book.share[numbers], book.votes[numbers]
    n, k = int(votes.sum()), float((np.where(turned, 1 - share, share) * votes).sum())
    images = (row.first, row.second) if k >= n - k else (row.second, row.first)
    note = f"{max(k, n - k):g} : {min(k, n - k):g} votes in {len(numbers)} rows"
    return Example(_where(book.some(numbers, 4)), row.caption, images, note, preferred=2 * k != n)


def side_by_side(book: AuditRows, numbers: Sequence[int]) -> Example:
    """One row of each pair among these."""
    rows = list({row.pair: row for row in reversed(book.some(numbers, MANY))}.values())[::-1]
    images = [name for row in rows[:2] for name in example_of(row).images]
    note = "each row's preferred image comes first"
    return Example(_where(rows[:4]), rows[0].caption, tuple(images), note)


def _where(rows: Sequence[Row]) -> str:
    """Files are named once: `a.parquet, row 3, 4; b.parquet, row 0`."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.file, []).append(str(row.row))
    return "; ".join(f"{file}, row{'s' * (len(some) > 1)} {', '.join(some)}" for file, some in found.items())
