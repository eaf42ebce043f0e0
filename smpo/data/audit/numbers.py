"""Numbers over the whole set: how noisy votes are, and what there is of each size and length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smpo.data.audit.expected import Expected
from smpo.data.audit.groups import Groups
from smpo.data.audit.rows import AuditRows
from smpo.data.pairs.interning import Array

__all__ = ["charts_of", "vote_noise"]


def vote_noise(book: AuditRows, rows: Array, pairs: Groups) -> dict[str, Any]:
    """How often one person's vote is wrong, if all annotators err equally often on every pair: two votes on a pair then
    disagree with probability d = 2 e (1 - e)."""
    share, votes = book.share[rows], book.votes[rows]
    counts = np.where((votes > 1) | (share != 0.5), votes, 0)  # a tie is no vote for either
    turned = book.first[rows] != book.first[rows][pairs.first][pairs.number]
    n, k = pairs.sums(counts), pairs.sums(counts * np.where(turned, 1 - share, share))
    n, k = n[n > 1], k[n > 1]
    if not len(n):
        return {"pairs": 0, "disagreement": None, "error": None}
    disagreements = 2 * k * (n - k) / (n - 1)  # n times the share of its pairs of votes that disagree
    d = min(float(disagreements.sum() / n.sum()), 1.0)
    error = (1 - math.sqrt(1 - 2 * d)) / 2 if d <= 0.5 else 0.5
    return {"pairs": len(n), "disagreement": d, "error": error}


def charts_of(
    book: AuditRows, rows: Array, pairs: Groups, images: Array, lengths: Array, expected: Expected
) -> dict[str, list[tuple[str, int]]]:
    """`pairs` groups these rows; `images` are numbers of those that they show; `lengths` are those of prompts."""
    charts: dict[str, list[tuple[str, int]]] = {}
    votes, counts = np.unique(pairs.sums(book.votes[rows]).astype(int), return_counts=True)
    charts["votes a pair"] = _few([(str(n), k) for n, k in zip(votes.tolist(), counts.tolist(), strict=True)])
    sizes = book.sizes[images]
    sizes = sizes[sizes[:, 0] > 0]
    if len(sizes):
        each, counts = np.unique(sizes, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        charts["image sizes"] = _few([(f"{each[i][0]}×{each[i][1]}", int(counts[i])) for i in order])
    if len(lengths):
        step = max(1, -(-int(lengths.max()) // 12))
        name = "prompt length in tokens" if expected.tokens is not None else "prompt length in words"
        charts[name] = [
            (f"{b * step}" if step == 1 else f"{b * step}-{(b + 1) * step - 1}", count)
            for b, count in enumerate(np.bincount(lengths // step).tolist())
        ]
    return charts


def _few(bars: list[tuple[str, int]], most: int = 10) -> list[tuple[str, int]]:
    rest = sum(count for _, count in bars[most:])
    return [*bars[:most], *([("others", rest)] if rest else [])]
