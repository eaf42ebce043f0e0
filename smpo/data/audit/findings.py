"""What an audit says: findings with examples, and the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from smpo.data.audit.book import Row
from smpo.data.audit.crops import Crops
from smpo.data.audit.margins import Margins

__all__ = [
    "SHOWN", "Audit", "Example", "Expected", "Finding", "example_of", "example_of_pair", "side_by_side", "votes_for",
    "winner_of",
]  # fmt: skip

Weight = Literal["lost", "doubtful", "plain"]

SHOWN = 6
"""Examples of each finding."""


@dataclass(frozen=True)
class Expected:
    """What the data is for. `tokens` counts a prompt's tokens, with those that begin and end it; without it, words
    are counted. `held_out`: names of prompt sets and what is in them. `sizes`: of buckets, (height, width), for a
    comparison where the spec isn't `bucketed`."""

    resolution: int | None = None
    tokens: Callable[[Sequence[str]], Sequence[int]] | None = None
    longest: int | None = None
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: Sequence[tuple[int, int]] = ()
    bucketed: bool = False


@dataclass(frozen=True)
class Example:
    where: str
    prompt: str
    images: tuple[str, ...] = ()
    """Content ids; the preferred one first, where somebody preferred one."""
    note: str = ""
    preferred: bool = False
    """Whether the first image was preferred."""


@dataclass(frozen=True)
class Finding:
    """`count` of `of` `unit` are concerned. `lost` rows are never trained on, `doubtful` ones are, `plain` is worth
    knowing."""

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


def winner_of(row: Row) -> str:
    return row.second if row.share is not None and row.share < 0.5 else row.first


def votes_for(rows: Iterable[Row], image: str) -> float:
    """Votes for an image, of rows that all show it."""
    shares = ((row.share if row.first == image else 1 - (row.share or 0.0), row.votes) for row in rows)
    return sum((share or 0.0) * votes for share, votes in shares)


def example_of(row: Row, note: str = "") -> Example:
    images = (row.second, row.first) if winner_of(row) == row.second else (row.first, row.second)
    preferred = row.share is not None and row.share != 0.5
    return Example(row.where, row.caption, tuple(name for name in images if name), note, preferred)


def example_of_pair(rows: Sequence[Row]) -> Example:
    """Several rows on one pair."""
    n = sum(row.votes for row in rows)
    first = rows[0].first
    k = votes_for(rows, first)
    images = (first, rows[0].second) if k >= n - k else (rows[0].second, first)
    note = f"{max(k, n - k):g} : {min(k, n - k):g} votes in {len(rows)} rows"
    return Example(_where(rows), rows[0].caption, images, note, preferred=2 * k != n)


def _where(rows: Sequence[Row]) -> str:
    """Files are named once: `a.parquet, row 3, 4; b.parquet, row 0`."""
    found: dict[str, list[str]] = {}
    for row in rows[:4]:
        found.setdefault(row.file, []).append(str(row.row))
    return "; ".join(f"{file}, row{'s' * (len(some) > 1)} {', '.join(some)}" for file, some in found.items())


def side_by_side(group: Mapping[tuple[str, str, str], Sequence[Row]]) -> Example:
    rows = [some[0] for some in group.values()]
    images = [name for row in rows[:2] for name in example_of(row).images]
    note = "each row's preferred image comes first"
    return Example(_where(rows), rows[0].caption, tuple(images), note)
