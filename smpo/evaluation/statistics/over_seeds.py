"""Two models over several training seeds, on the same prompts: a comparison of *methods*, not of runs.

A win rate over prompts of one training run doesn't hold for the next run. Scores are crossed here, seeds `[S]` by
prompts `[P]`, and both are sampled from something larger. The two uncertainties are worked out separately (over
prompts, in clusters, with all seeds pooled; over seeds, from their means) and their half-widths added in quadrature:

    low = m - sqrt( (m - low_prompts)^2 + (m - low_seeds)^2 ),    high likewise

which keeps the lopsidedness of Wilson's interval near 0 and 1 (Zou & Donner 2008 combine intervals so). The noise of
single scores enters both parts, so the interval errs on the wide side; the tests simulate its coverage. With one seed
the second part is unknown, and None.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from smpo.errors import RunError
from smpo.evaluation.statistics.intervals import LEVEL
from smpo.evaluation.statistics.paired import compare

__all__ = ["Contrast", "Estimate", "contrast"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval over prompts and seeds, and the two parts of it."""

    value: float
    low: float
    high: float
    prompts: tuple[float, float]
    """Interval over prompts alone: these training seeds, other prompts."""
    seeds: tuple[float, float] | None
    """Interval over seeds alone: these prompts, other training runs. None with one seed."""
    by_seed: tuple[float, ...]
    between: float | None
    """Standard deviation between seeds."""

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Contrast:
    """One set of runs against another, or against the model that all of them started from."""

    seeds: int
    prompts: int
    clusters: int
    dropped: int
    gain: Estimate
    """Mean difference of scores."""
    win_rate: Estimate
    """Share of prompts on which the first scores higher, a tie counting half; averaged over seeds."""
    p_value: float | None
    """Two-sided, of "the mean gain is zero", over prompts and seeds. None with one seed: compare prompts instead."""


def contrast(ours: ArrayLike, theirs: ArrayLike, groups: Sequence[Hashable]) -> Contrast | None:
    """Compare scores `[S, P]` with scores `[S, P]` of the same seeds and prompts; `groups` `[P]` are prompts' clusters.

    Prompts without a finite score in every run are dropped and counted; None when no prompt is left.
    """
    after, before = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if after.ndim != 2 or after.shape != before.shape or after.shape[1] != len(groups):
        raise RunError(f"can't compare scores of shapes {after.shape} and {before.shape}: runs differ in their prompts")
    finite = np.asarray(np.isfinite(after).all(axis=0) & np.isfinite(before).all(axis=0))
    after, before = after[:, finite], before[:, finite]
    kept = [group for group, keep in zip(groups, finite.tolist(), strict=True) if keep]
    seeds, prompts = after.shape
    if prompts == 0:
        return None
    # All seeds of a prompt are in the prompt's cluster.
    pooled = compare(after.ravel(), before.ravel(), kept * seeds)
    difference = after - before
    wins = np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))
    gain = _estimate(difference.mean(axis=1), pooled.gain_low, pooled.gain_high)
    rate = _estimate(wins.mean(axis=1), pooled.win_rate_low, pooled.win_rate_high, within=(0.0, 1.0))
    return Contrast(
        seeds=seeds,
        prompts=prompts,
        clusters=pooled.clusters,
        dropped=int((~finite).sum()),
        gain=gain,
        win_rate=rate,
        p_value=_p_value(gain, pooled.clusters),
    )


def _estimate(
    by_seed: NDArray[np.float64],
    low: float | None,
    high: float | None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    value, count = float(by_seed.mean()), len(by_seed)
    prompts = (value if low is None else low, value if high is None else high)
    seeds, between, half = None, None, 0.0
    if count > 1:
        between = float(by_seed.std(ddof=1))
        half = float(special.stdtrit(count - 1, (1 + LEVEL) / 2)) * between / math.sqrt(count)
        seeds = (max(within[0], value - half), min(within[1], value + half))
    return Estimate(
        value=value,
        low=max(within[0], value - math.hypot(value - prompts[0], half)),
        high=min(within[1], value + math.hypot(prompts[1] - value, half)),
        prompts=prompts,
        seeds=seeds,
        by_seed=tuple(float(one) for one in by_seed),
        between=between,
    )


def _p_value(gain: Estimate, clusters: int) -> float | None:
    """Of a t statistic whose variance is the sum of both parts, degrees of freedom by Satterthwaite."""
    if gain.between is None or clusters < 2:
        return None
    count = len(gain.by_seed)
    over_seeds = gain.between**2 / count
    quantile = float(special.stdtrit(clusters - 1, (1 + LEVEL) / 2))
    over_prompts = ((gain.prompts[1] - gain.prompts[0]) / 2 / quantile) ** 2
    total = over_seeds + over_prompts
    if total == 0:
        return 1.0 if gain.value == 0 else 0.0
    freedom = total**2 / (over_seeds**2 / (count - 1) + over_prompts**2 / (clusters - 1))
    return 2 * float(special.stdtr(freedom, -abs(gain.value) / math.sqrt(total)))
