"""Shared trajectories: what each sample would have found alone, for as many passes as were counted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.maths.counting import expected_passes
from smpo.maths.legs import shared_passes
from smpo.maths.noising import invert
from smpo.maths.schedule import NoiseSchedule

from .toys import policy, random

CONVENTIONS = st.sampled_from(["exact", "lt_0_22", "ge_0_22"])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 999)), min_size=1, max_size=9),
    CONVENTIONS,
    st.integers(1, 12),
    st.integers(0, 2),
    st.sampled_from(["every", "last"]),
)
def test_sharing_the_way_changes_only_the_price(samples, convention, steps, refinements, where) -> None:
    schedule = NoiseSchedule.scaled_linear()
    images = [image for image, _ in samples]
    t = torch.tensor([timestep for _, timestep in samples])
    x0, style = random(3, 2, 2)[images], random(3, 1, 1, seed=1)[images]

    def predict(x, t, rows):
        return policy(x, t) + 0.1 * torch.sin(x + style[rows])

    options = {"convention": convention, "steps": steps, "refinements": refinements, "where": where}
    alone = invert(x0, t, predict, schedule, **options)
    shared = invert(x0, t, predict, schedule, images=images, **options)
    torch.testing.assert_close(shared.x_t, alone.x_t, rtol=0, atol=1e-12)
    torch.testing.assert_close(shared.noise, alone.noise, rtol=0, atol=1e-9)
    assert shared.passes <= alone.passes
    if len(set(images)) == len(images):
        assert shared.passes == alone.passes


@given(CONVENTIONS, st.integers(1, 12), st.integers(0, 2), st.sampled_from(["every", "last"]))
def test_one_level_costs_what_it_always_did(convention, steps, refinements, where) -> None:
    shared = shared_passes(1, steps, refinements, 1000, convention, 40, 979, where=where)
    assert shared == expected_passes(steps, refinements, 1000, convention, 40, 979, where=where)


@pytest.mark.parametrize("convention", ["exact", "lt_0_22", "ge_0_22"])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_announced_price_is_the_mean_of_what_is_paid(levels: int, convention: str) -> None:
    """Over 6,000 values of u, which is finer than the timesteps can tell apart."""
    schedule, spent, images, ts = NoiseSchedule.scaled_linear(), 6000, [], []
    for i in range(spent):
        u = (i + 0.5) / spent
        images += [i] * levels
        ts += [int(1000 * (u + k) / levels) for k in range(levels)]
    x0 = torch.zeros(len(ts), 1)
    paid = invert(
        x0, torch.tensor(ts), policy, schedule, steps=10, convention=convention, images=images
    ).passes
    assert paid / len(ts) == pytest.approx(shared_passes(levels, 10, 1, convention=convention), rel=1e-3)


def test_four_timesteps_a_trajectory_save_more_than_half() -> None:
    """performance.md's c(4) for SDXL since diffusers 0.22: 16.4 F a sample beside 29.9, the 8 F of gradients included;
    strata make the furthest of four go a little further than chance does."""
    assert 2 * shared_passes(1, 10, 1, convention="ge_0_22") + 8 == pytest.approx(29.92)
    assert 2 * shared_passes(4, 10, 1, convention="ge_0_22") + 8 == pytest.approx(17.18, abs=0.01)
    assert 2 * shared_passes(4, 5, 1, convention="ge_0_22") + 8 == pytest.approx(12.8, abs=0.01)
