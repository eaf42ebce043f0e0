"""Numbers over the whole set: how noisy votes are, and what there is of each size and length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smpo.data.audit.book import Book, Row
from smpo.data.audit.findings import Expected, votes_for
from smpo.data.audit.sizes import size_of

__all__ = ["charts_of", "vote_noise"]


def vote_noise(votes: Mapping[tuple[str, str, str], list[Row]]) -> dict[str, Any]:
    """How often one person's vote is wrong, if everybody errs equally often on every pair: two votes on a pair then
    disagree with probability d = 2 e (1 - e)."""
    weights = disagreements = 0.0
    pairs = 0
    for some in votes.values():
        decided = [row for row in some if row.votes > 1 or row.share != 0.5]  # a tie is no vote for either
        n = sum(row.votes for row in decided)
        if n < 2:
            continue
        k = votes_for(decided, some[0].first)
        pairs += 1
        weights += n
        disagreements += 2 * k * (n - k) / (n - 1)  # n times the share of its pairs of votes that disagree
    if not pairs:
        return {"pairs": 0, "disagreement": None, "error": None}
    d = min(disagreements / weights, 1.0)
    error = (1 - math.sqrt(1 - 2 * d)) / 2 if d <= 0.5 else 0.5
    return {"pairs": pairs, "disagreement": d, "error": error}


def charts_of(
    votes: Mapping[tuple[str, str, str], list[Row]],
    images: Iterable[str],
    book: Book,
    lengths: Sequence[int],
    expected: Expected,
) -> dict[str, list[tuple[str, int]]]:
    charts: dict[str, list[tuple[str, int]]] = {}
    counted = Counter(sum(row.votes for row in some) for some in votes.values())
    charts["votes a pair"] = _few([(str(n), counted[n]) for n in sorted(counted)])
    sizes = Counter(size_of(book, name) for name in images if name in book.looks)
    if sizes:
        charts["image sizes"] = _few(sizes.most_common())
    if lengths:
        step = max(1, -(-max(lengths) // 12))
        buckets = Counter(length // step for length in lengths)
        name = "prompt length in tokens" if expected.tokens is not None else "prompt length in words"
        charts[name] = [
            (f"{b * step}" if step == 1 else f"{b * step}-{(b + 1) * step - 1}", buckets[b])
            for b in range(max(buckets) + 1)
        ]
    return charts


def _few(bars: list[tuple[str, int]], most: int = 10) -> list[tuple[str, int]]:
    rest = sum(count for _, count in bars[most:])
    return [*bars[:most], *([("others", rest)] if rest else [])]


# ------------------------------------------------------------------------------------------------ examples
