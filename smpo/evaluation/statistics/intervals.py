"""95 % intervals for a mean and a share over prompts, some of which belong together.

Prompts of one *cluster* tend to agree, so clusters, not prompts, are what is independent. With one prompt a cluster
everything reduces to the textbook: the t interval and Wilson's interval. Closed forms, so the same scores always give
the same figures; the tests simulate their coverage, down to three clusters of unequal size.

Sources: Bell & McCaffrey 2002 and Imbens & Kolesár 2016 (CR2 variance and its degrees of freedom); Wilson 1927; Korn &
Graubard 1998 and Dean & Pagano 2015 (effective sample size in an interval for a share).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from smpo.errors import RunError

__all__ = [
    "LEVEL",
    "Codes",
    "Floats",
    "cluster_codes",
    "mean_interval",
    "mean_p_value",
    "prompts_needed",
    "share_interval",
]

LEVEL = 0.95

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
"""The cluster of each value, numbered from 0 without gaps."""


def cluster_codes(groups: Sequence[Hashable]) -> Codes:
    """Clusters as integers from 0, in order of appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(group, len(seen)) for group in groups], dtype=np.intp)


def mean_interval(values: Floats, codes: Codes) -> tuple[float, float | None, float | None]:
    """`(mean, low, high)` of `values [n]` whose clusters are `codes [n]`; None when there is one cluster only.

        mean +- t(df) sqrt(V),   V = sum_g u_g^2 / (1 - n_g/n) / n^2,   u_g = sum_{i in g} (x_i - mean)

    V is CR2, df is Bell and McCaffrey's; one value a cluster gives the ordinary t interval with n - 1.
    """
    mean, variance, freedom = _cluster_mean(values, codes)
    if variance is None:
        return mean, None, None
    half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return mean, mean - half, mean + half


def mean_p_value(values: Floats, codes: Codes) -> float | None:
    """Two-sided p-value of "the mean is zero", by the t statistic of `mean_interval`: it tests what the interval shows.

        2 P(t(df) > |mean| / sqrt(V))

    1 where all values are zero; None for one cluster, and where all values are one other number: V is zero then.
    """
    mean, variance, freedom = _cluster_mean(values, codes)
    if variance is None:
        return None
    if variance == 0:
        return 1.0 if mean == 0 else None
    return 2 * float(special.stdtr(freedom, -abs(mean) / math.sqrt(variance)))


def share_interval(wins: Floats, codes: Codes, like: Floats | None = None) -> tuple[float, float, float, float]:
    """`(share, low, high, design effect)` of `wins [n]` in {0, 1/2, 1}: Wilson's interval at an effective n.

    The effective n is n over the design effect (CR2 variance over the variance of independent prompts, at least 1),
    times (t(n-1) / t(df))^2 for few clusters. When all prompts won or all lost, wins don't show how clusters agree; the
    values `like [n]` (the gains) count instead, and if they are constant too, a cluster counts as one prompt. Ties
    would allow a narrower interval; it is kept at the width for wins and losses.
    """
    n, clusters = len(wins), int(codes.max()) + 1
    share, variance, freedom = _cluster_mean(wins, codes)
    effect, size = float(n), 1.0
    if variance is not None:
        spread, source = wins.var(ddof=1) / n, variance
        if spread == 0 and like is not None:
            spread, source = like.var(ddof=1) / n, _cluster_mean(like, codes)[1] or 0.0
        effect = max(1.0, float(source / spread)) if spread > 0 else n / clusters
        quantile = special.stdtrit([n - 1, freedom], (1 + LEVEL) / 2)
        size = n / effect * float(quantile[0] / quantile[1]) ** 2
    low, high = _wilson(share, size)
    return share, low, high, effect


def prompts_needed(effect: float = 0.02, *, win_rate: float = 0.5, design_effect: float = 1.0) -> int:
    """Prompts for which a win rate's 95 % interval is `win_rate +- effect`: `1.96^2 w (1 - w) / effect^2`,
    times the design effect. About 2,400 for two points at a win rate of one half."""
    if not 0 < effect < 0.5:
        raise RunError(f"an effect is a share between 0 and 0.5, such as 0.02, not {effect}")
    z = float(special.ndtri((1 + LEVEL) / 2))
    # Near 0 and 1 the variance of a share vanishes, but it isn't known beforehand that it stays there.
    spread = max(win_rate * (1 - win_rate), effect * (1 - effect))
    return math.ceil(z**2 * spread / effect**2 * design_effect)


def _cluster_mean(values: Floats, codes: Codes) -> tuple[float, float | None, float]:
    """`(mean, CR2 variance of the mean, degrees of freedom)`; the variance is None with fewer than two clusters.

    With weights `a_g = 1 / (n sqrt(1 - n_g/n))`, V is the squared length of the vector `a_g u_g`. Were all values
    independent with variance 1, that vector would have covariance `M = a_g a_h (n_g [g = h] - n_g n_h / n)`, and V is
    matched to a chi-square: df = tr(M)^2 / tr(M^2).
    """
    n = len(values)
    mean = float(values.mean())
    sizes = np.bincount(codes).astype(np.float64)  # [G]
    if len(sizes) < 2:
        return mean, None, 0.0
    share = sizes / n
    weight = 1 / (n**2 * (1 - share))  # a_g^2
    rest = np.bincount(codes, weights=values - mean)  # u_g
    trace = float((weight * sizes * (1 - share)).sum())
    off = weight * sizes**2 / n
    trace_squared = float(((weight * sizes * (1 - share)) ** 2).sum() + off.sum() ** 2 - (off**2).sum())
    return mean, float((weight * rest**2).sum()), trace**2 / trace_squared


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's score interval for a share of n, n real. Never empty, never outside [0, 1], even for n = 1."""
    z = float(special.ndtri((1 + LEVEL) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(max(0.0, share * (1 - share)) / n + z**2 / (4 * n**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
