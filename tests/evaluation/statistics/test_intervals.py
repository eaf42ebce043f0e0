"""Intervals must be the textbook's where it has one, and cover the truth where it hasn't."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smpo.errors import RunError
from smpo.evaluation.statistics.intervals import _cluster_mean, mean_interval, prompts_needed, share_interval


def test_without_clusters_the_mean_has_the_ordinary_t_interval() -> None:
    values = np.random.default_rng(0).exponential(size=23)
    mean, low, high = mean_interval(values, np.arange(23))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))


@pytest.mark.parametrize(("won", "n"), [(0, 1), (1, 1), (7, 10), (10, 10), (0, 40), (321, 500)])
def test_without_clusters_the_share_has_wilsons_interval(won: int, n: int) -> None:
    wins = np.array([1.0] * won + [0.0] * (n - won))
    share, low, high, effect = share_interval(wins, np.arange(n))
    expected = stats.binomtest(won, n).proportion_ci(0.95, method="wilson")
    assert (share, low, high, effect) == pytest.approx((won / n, expected.low, expected.high, 1.0), abs=1e-12)


def test_equal_clusters_are_a_t_interval_over_their_means() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(9, 4)) + rng.normal(size=(9, 1))
    _, low, high = mean_interval(values.ravel(), np.repeat(np.arange(9), 4))
    expected = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_degrees_of_freedom_match_the_moments_they_stand_for() -> None:
    """V / E[V] times df should have the variance 2 df of a chi-square, for independent normal values."""
    sizes = np.array([1, 2, 3, 12, 5])
    codes = np.repeat(np.arange(5), sizes)
    rng = np.random.default_rng(2)
    found = [_cluster_mean(rng.normal(size=len(codes)), codes) for _ in range(2_000)]
    variances, freedom = np.array([f[1] for f in found]), found[0][2]
    assert variances.mean() == pytest.approx(1 / len(codes), rel=0.05)
    assert 2 * variances.mean() ** 2 / variances.var() == pytest.approx(freedom, rel=0.15)


CASES = {
    "independent": (np.ones(40, dtype=int), 0.0),
    "few": (np.full(5, 8), 0.3),
    "clusters": (np.full(25, 6), 0.4),
    "unequal": (2 + np.arange(20) ** 2 % 13, 0.4),
    "one giant": (np.array([40] + [4] * 12), 0.3),
}


@pytest.mark.parametrize("case", CASES)
def test_coverage(case: str) -> None:
    """95 % of 1,000 simulated intervals hold the truth, give or take the simulation's own 1.4 points.

    More is allowed for shares in few clusters, where the interval is wide on purpose.
    """
    sizes, agreement = CASES[case]
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rng, reps, shift = np.random.default_rng(3), 1_000, 0.25
    truth = float(stats.norm.cdf(shift))
    mean_held = share_held = naive_held = 0
    for _ in range(reps):
        shared = rng.normal(size=len(sizes))[codes] * agreement**0.5
        gains = shift + shared + rng.normal(size=len(codes)) * (1 - agreement) ** 0.5
        _, low, high = mean_interval(gains, codes)
        assert low is not None and high is not None
        mean_held += low <= shift <= high
        _, low, high, _ = share_interval((gains > 0).astype(float), codes, gains)
        share_held += low <= truth <= high
        _, low, high = mean_interval(gains, np.arange(len(codes)))
        assert low is not None and high is not None
        naive_held += low <= shift <= high
    assert 0.93 <= mean_held / reps <= 0.98
    assert share_held / reps >= 0.93
    if agreement:
        assert naive_held / reps < 0.90, "without clusters these intervals would be too narrow"


def test_all_wins_in_clusters_are_worth_less_than_all_wins() -> None:
    wins, codes = np.ones(40), np.repeat(np.arange(5), 8)
    gains = 1 + np.random.default_rng(4).normal(size=5)[codes] * 0.1
    clustered, independent = share_interval(wins, codes, gains), share_interval(wins, np.arange(40))
    assert clustered[1] < independent[1] < 1
    assert share_interval(wins, codes, np.ones(40))[3] == 8, "constant gains: a cluster counts as one prompt"
    assert share_interval(wins, np.zeros(40, dtype=np.intp))[1] == pytest.approx(
        share_interval(np.ones(1), np.zeros(1, dtype=np.intp))[1]
    )


def test_prompts_needed() -> None:
    assert prompts_needed(0.02) == 2401
    assert prompts_needed(0.02, design_effect=3) == pytest.approx(3 * 2401, abs=3)
    assert 0 < prompts_needed(0.02, win_rate=1.0) < 2401
    with pytest.raises(RunError, match="between 0 and"):
        prompts_needed(2)
