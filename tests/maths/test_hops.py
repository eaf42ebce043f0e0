"""The price of an inversion: closed form against brute force, and against what official code does."""

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpo.maths.hops import InversionConfig, expected_passes, forwards_per_hop, grid, itinerary

CONVENTIONS = ["exact", "lt_0_22", "ge_0_22"]


@pytest.mark.parametrize(
    ("steps", "levels"),
    [(5, [1, 201, 401, 601, 801]), (10, list(range(1, 1000, 100))), (20, list(range(1, 1000, 50)))],
)
def test_the_grid_is_that_of_both_diffusers_versions(steps: int, levels: list[int]) -> None:
    delta = 1000 // steps
    assert list(grid(steps)) == levels
    assert [h.target for h in itinerary(steps, convention="ge_0_22")] == levels
    # Below 0.22 the list is rolled: one negative entry first, the largest level missing.
    assert [h.source for h in itinerary(steps, convention="lt_0_22")] == [1 - delta, *levels[:-1]]


@pytest.mark.parametrize(
    ("steps", "convention", "mean"),
    [(5, "lt_0_22", 7.584), (10, "lt_0_22", 12.76), (5, "ge_0_22", 5.98), (10, "ge_0_22", 10.96)],
)
def test_mean_passes_of_the_official_settings(steps: int, convention: str, mean: float) -> None:
    assert expected_passes(InversionConfig(steps, 1, convention=convention)) == pytest.approx(mean, abs=0.005)


@given(
    st.integers(2, 60).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T - 1))),
    st.sampled_from(CONVENTIONS),
    st.integers(0, 4),
    st.booleans(),
    st.data(),
)
def test_closed_form_equals_brute_force(
    size: tuple[int, int], convention: str, refinements: int, skip_first: bool, data: st.DataObject
) -> None:
    T, steps = size
    skip_first = skip_first and convention == "exact"
    offset = data.draw(st.integers(0, T - 1 - (steps - 1) * (T // steps)))
    low = data.draw(st.integers(0, T - 1))
    high = data.draw(st.integers(low, T - 1))
    delta, levels = T // steps, grid(steps, T, offset)

    def hops(t: int) -> int:
        if convention == "exact":  # method reference 1.5: all levels below t, then t
            return sum(level < t for level in (levels[1:] if skip_first else levels)) + 1
        starts = levels if convention == "ge_0_22" else [level - delta for level in levels]
        return sum(g < t for g in starts)  # `for g in timesteps if g < t`

    counts = [hops(t) * (refinements + 1) for t in range(low, high + 1)]
    config = InversionConfig(steps, refinements, convention=convention, offset=offset, skip_first=skip_first)
    assert expected_passes(config, T, low, high) == pytest.approx(sum(counts) / len(counts))
    assert expected_passes(config, T, high, high) == max(counts) == counts[-1]


def test_samples_only_ever_arrive() -> None:
    for convention in CONVENTIONS:
        after = [hop.after for hop in itinerary(7, convention=convention)]
        assert after == sorted(after)


def dearest(steps: int, refinements: int, **settings) -> float:
    """Passes of a sample at the last timestep."""
    return expected_passes(InversionConfig(steps, refinements, **settings), t_min=999)


def test_refinements_are_paid_unless_they_are_ignored() -> None:
    assert [forwards_per_hop(k, "average") for k in range(3)] == [1, 2, 3]
    assert forwards_per_hop(3, "none") == 1
    assert dearest(10, 1) == 22 and dearest(10, 1, skip_first=True) == 20
    assert dearest(10, 1, combine="none") == dearest(10, 0) == 11


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: grid(0), "between 1 and 1000"),
        (lambda: grid(1001), "between 1 and 1000"),
        (lambda: grid(1000), "outside 0..999"),
        (lambda: itinerary(5, convention="newest"), "unknown convention"),
        (lambda: itinerary(5, convention="lt_0_22", skip_first=True), "skip_first"),
        (lambda: dearest(5, -1), "negative"),
        (lambda: expected_passes(InversionConfig(5, 1), t_max=1000), "outside 0..999"),
        (lambda: expected_passes(InversionConfig(5, 1), t_min=30, t_max=20), "above"),
    ],
)
def test_impossible_settings_are_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_planning_does_not_load_torch() -> None:
    code = "import sys, smpo.maths.hops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 10, 33, 500])
def test_quadratic_grids_ascend_from_the_first_level_and_stay_on_the_table(steps: int) -> None:
    levels = grid(steps, spacing="quadratic")
    assert len(levels) == steps and levels[0] == 1 and levels[-1] <= 998
    assert all(a < b for a, b in pairwise(levels))
    if steps > 4:
        assert levels[1] - levels[0] < (levels[-1] - levels[-2]) / 2, "dense where the noise is low"


def test_spacing_is_for_the_exact_convention() -> None:
    assert (
        dearest(10, 1, spacing="quadratic") == 22 and expected_passes(InversionConfig(10, 1, spacing="quadratic")) > 13
    )
    with pytest.raises(ValueError, match="exists to reproduce"):
        itinerary(10, convention="lt_0_22", spacing="quadratic")
