"""Comparisons say what the scores say, and no more when there is little to say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smpo.errors import RunError
from smpo.evaluation.statistics.intervals import mean_p_value
from smpo.evaluation.statistics.paired import compare, holm

RNG = np.random.default_rng(0)


def test_figures_of_a_plain_comparison() -> None:
    base = RNG.normal(size=50)
    policy = base + RNG.normal(0.5, 1.0, size=50)
    policy[:3] = base[:3]
    c = compare(policy, base)
    assert (c.prompts, c.clusters, c.dropped, c.ties) == (50, 50, 0, 3)
    assert c.wins + c.ties + c.losses == 50
    assert c.win_rate == pytest.approx((c.wins + 1.5) / 50)
    assert c.gain == pytest.approx(np.mean(policy - base))
    assert c.median_policy == pytest.approx(np.median(policy))
    assert c.p_value == pytest.approx(stats.ttest_rel(policy, base).pvalue)
    assert c.notes == ()


def test_swapping_the_models_turns_everything_round() -> None:
    a, b = RNG.normal(size=60), RNG.normal(0.2, 1, size=60)
    groups = [f"scene {k // 5}" for k in range(60)]
    one, other = compare(a, b, groups), compare(b, a, groups)
    assert one.clusters == 12
    assert one.gain == pytest.approx(-other.gain)  # type: ignore[operator]
    assert one.gain_low == pytest.approx(-other.gain_high)  # type: ignore[operator]
    assert one.win_rate_low == pytest.approx(1 - other.win_rate_high)  # type: ignore[operator]
    assert one.p_value == pytest.approx(other.p_value, abs=0.02)


def test_agreeing_clusters_widen_every_interval() -> None:
    effect = RNG.normal(0.3, 1.0, size=15)
    gains = np.repeat(effect, 10) + RNG.normal(0, 0.1, size=150)
    clustered, naive = (
        compare(gains, 0 * gains, np.repeat(np.arange(15), 10).tolist()),
        compare(gains, 0 * gains),
    )
    for low, high in (("gain_low", "gain_high"), ("win_rate_low", "win_rate_high")):
        assert getattr(clustered, low) < getattr(naive, low)
        assert getattr(clustered, high) > getattr(naive, high)
    assert clustered.p_value > naive.p_value  # type: ignore[operator]
    assert clustered.design_effect > 5
    assert clustered.prompts_needed() > naive.prompts_needed()


@pytest.mark.parametrize(
    ("policy", "base", "groups"),
    [
        ([], [], None),
        ([math.nan], [1.0], None),
        ([1.0], [0.0], None),
        ([1.0], [1.0], None),
        ([1.0] * 20, [1.0] * 20, None),
        ([2.0] * 20, [1.0] * 20, None),
        ([2.0] * 20, [1.0] * 20, ["one"] * 20),
        ([2.0] * 20, [1.0] * 20, ["a", "b"] * 10),
        ([1.0, 2.0, math.nan, math.inf], [0.0, 3.0, 1.0, 0.0], None),
        ([1.0, 2.0, 3.0], [-math.inf, math.nan, 3.0], ["a", "a", "b"]),
        ([3e38, -3e38], [-3e38, 3e38], None),
    ],
)
def test_degenerate_scores_give_honest_answers(
    policy: list[float], base: list[float], groups: list[str] | None, recwarn: pytest.WarningsRecorder
) -> None:
    c = compare(policy, base, groups)
    json.dumps(c.to_dict(), allow_nan=False)
    for name in ("gain", "win_rate"):
        value, low, high = (getattr(c, f"{name}{end}") for end in ("", "_low", "_high"))
        assert (value is None) == (c.prompts == 0)
        if low is not None:
            assert low <= value <= high
    assert c.p_value is None or 0 < c.p_value <= 1
    assert c.prompts + c.dropped == len(policy)
    assert c.notes or c.prompts > 1
    assert c.verdict in ("better", "worse", "unresolved")
    assert not recwarn.list, "numpy and scipy had nothing to complain of"


def test_notes_name_the_reason() -> None:
    assert "no prompt could be compared" in compare([math.nan], [1.0]).notes
    assert "2 of 3 prompts have no finite score" in compare([math.nan, math.inf, 1], [1.0, 1, 2]).notes[0]
    assert "one prompt" in compare([1.0], [0.0]).notes[0]
    assert "one cluster" in compare([1.0, 2.0], [0.0, 0.0], ["a", "a"]).notes[0]
    assert "same on every prompt" in compare([1.0, 2.0], [1.0, 2.0]).notes[0]
    assert "no width" in compare([1.0, 2.0], [0.0, 1.0]).notes[0]


def test_all_ties_are_a_half_that_is_not_known_exactly() -> None:
    c = compare(np.ones(100), np.ones(100))
    assert (c.win_rate, c.ties, c.p_value, c.verdict) == (0.5, 100, 1.0, "unresolved")
    assert c.win_rate_low == pytest.approx(0.404, abs=0.001)


def test_shapes_that_cannot_be_paired() -> None:
    with pytest.raises(RunError, match="can't pair"):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(RunError, match="3 groups"):
        compare([1.0, 2.0], [1.0, 2.0], ["a", "b", "c"])


@given(
    gains=st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=30),
    groups=st.lists(st.integers(0, 6), min_size=30, max_size=30),
)
def test_a_p_value_says_what_the_interval_beside_it_says(gains: list[float], groups: list[int]) -> None:
    c = compare(gains, np.zeros(len(gains)), groups[: len(gains)])
    if c.p_value is None or c.gain_low is None or c.gain_high is None:
        assert c.gain_low is None or c.gain_low == c.gain_high
        return
    nearest = min(abs(c.gain_low), abs(c.gain_high))
    if nearest > 1e-9 * (c.gain_high - c.gain_low):  # else rounding decides
        assert (c.p_value < 0.05) == (c.gain_low > 0 or c.gain_high < 0)


def test_skewed_gains_of_mean_zero_are_not_called_significant() -> None:
    """Signed ranks test symmetry, and call most of these sets significant."""
    rng, sets = np.random.default_rng(3), 400
    found = sum((compare(rng.exponential(size=228) - 1, np.zeros(228)).p_value or 0.0) < 0.05 for _ in range(sets))
    assert 0.02 < found / sets < 0.09  # 5 % +- 3.7 standard errors, and the skewness of t at 228 prompts


def test_the_clustered_test_keeps_its_level_where_the_plain_one_fails() -> None:
    codes, rng, reps = np.repeat(np.arange(16), 6), np.random.default_rng(5), 300
    clustered = plain = 0
    for _ in range(reps):
        gains = rng.normal(size=16)[codes] + rng.normal(size=96)
        clustered += (mean_p_value(gains, codes) or 0.0) <= 0.05
        plain += (mean_p_value(gains, np.arange(96)) or 0.0) <= 0.05
    assert clustered / reps <= 0.085
    assert plain / reps > 0.15


def test_holm() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    p = RNG.uniform(size=7).tolist()
    adjusted = holm(p)
    assert all(a is not None and a >= q for a, q in zip(adjusted, p, strict=True))
    assert np.argsort(p).tolist() == sorted(range(7), key=lambda k: (adjusted[k], p[k]))
