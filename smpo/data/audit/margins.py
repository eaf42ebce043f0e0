"""What a reward thinks of the labels: how far apart it puts winner and loser, and how often it agrees."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smpo.data.audit.rows import SHOWN
from smpo.kinds import PairTable, ScoreStats

__all__ = ["Margins", "margins_of"]

BINS = 30
"""Even, so that no bar holds both agreement and contradiction."""


@dataclass(frozen=True)
class Margins:
    """`counts` `[BINS]` of the score of the winner minus that of the loser, between `edges` `[BINS + 1]`.

    `agreement` is the share of decided pairs in which the winner scores higher (equal scores count half), with its
    95 % interval; `by_size` the same for each quarter of the pairs, from the smallest |margin| to the largest.
    `against` lists rows of the table in which the reward contradicts the label most."""

    reward: str
    pairs: int
    edges: list[float]
    counts: list[int]
    mean: float
    agreement: float
    low: float
    high: float
    by_size: list[float]
    score_low: float
    score_high: float
    against: list[int] = field(default_factory=list)


def margins_of(reward: str, table: PairTable, winner: Any, loser: Any, stats: ScoreStats) -> Margins | None:
    """`winner`, `loser` `[M]` scores in the table's order. Ties have no winner, and are left out; None when all are
    ties."""
    rows = np.flatnonzero(np.fromiter((table[row].share > 0.5 for row in range(len(table))), bool, len(table)))
    if not len(rows):
        return None
    margin = (np.asarray(winner, np.float64) - np.asarray(loser, np.float64))[rows]
    agrees = np.where(margin == 0, 0.5, margin > 0)
    far = float(np.abs(margin).max()) or 1.0
    counts, edges = np.histogram(margin, bins=BINS, range=(-far, far))
    quarters = np.array_split(agrees[np.argsort(np.abs(margin), kind="stable")], min(4, len(rows)))
    worst = [int(i) for i in np.argsort(margin, kind="stable")[:SHOWN] if margin[i] < 0]
    low, high = _wilson(float(agrees.mean()), len(rows))
    return Margins(
        reward=reward,
        pairs=len(rows),
        edges=[float(edge) for edge in edges],
        counts=[int(count) for count in counts],
        mean=float(margin.mean()),
        agreement=float(agrees.mean()),
        low=low,
        high=high,
        by_size=[float(quarter.mean()) for quarter in quarters],
        score_low=stats.low,
        score_high=stats.high,
        against=[int(rows[i]) for i in worst],
    )


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's formula."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)
