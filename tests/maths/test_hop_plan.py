"""Shared trajectories: what each sample would have found alone, for as many passes as were counted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.maths.hops import InversionConfig, expected_passes, shared_passes
from smpo.maths.inversion import invert
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
    alone = invert(x0, t, predict, schedule, InversionConfig(**options))
    shared = invert(x0, t, predict, schedule, InversionConfig(**options), images=images)
    torch.testing.assert_close(shared.x_t, alone.x_t, rtol=0, atol=1e-12)
    torch.testing.assert_close(shared.noise, alone.noise, rtol=0, atol=1e-9)
    assert shared.passes <= alone.passes
    if len(set(images)) == len(images):
        assert shared.passes == alone.passes


@given(CONVENTIONS, st.integers(1, 12), st.integers(0, 2), st.sampled_from(["every", "last"]))
def test_one_level_costs_what_it_always_did(convention, steps, refinements, where) -> None:
    shared = shared_passes(
        InversionConfig(steps, refinements, where=where, convention=convention),
        1,
        T=1000,
        t_min=40,
        t_max=979,
    )
    assert shared == expected_passes(
        InversionConfig(steps, refinements, where=where, convention=convention), T=1000, t_min=40, t_max=979
    )


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
        x0,
        torch.tensor(ts),
        policy,
        schedule,
        InversionConfig(steps=10, convention=convention),
        images=images,
    ).passes
    assert paid / len(ts) == pytest.approx(
        shared_passes(InversionConfig(10, 1, convention=convention), levels), rel=1e-3
    )


def test_four_timesteps_a_trajectory_save_more_than_half() -> None:
    """performance.md's c(4) for SDXL since diffusers 0.22: 16.4 F a sample beside 29.9, the 8 F of gradients included;
    strata make the furthest of four go a little further than chance does."""
    assert 2 * shared_passes(InversionConfig(10, 1, convention="ge_0_22"), 1) + 8 == pytest.approx(29.92)
    assert 2 * shared_passes(InversionConfig(10, 1, convention="ge_0_22"), 4) + 8 == pytest.approx(17.18, abs=0.01)
    assert 2 * shared_passes(InversionConfig(5, 1, convention="ge_0_22"), 4) + 8 == pytest.approx(12.8, abs=0.01)


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 5))
def test_reusing_the_last_prediction_saves_one_a_hop_but_the_first(steps, refinements, levels) -> None:
    """K passes for each of k hops, and one more for the first, instead of (K + 1) k."""
    full = shared_passes(InversionConfig(steps, refinements), levels)
    reused = shared_passes(InversionConfig(steps, refinements, reuse_last=True), levels)
    hops = full / (refinements + 1)
    assert full - hops < reused <= full
    if levels == 1:  # every timestep makes a first hop
        assert reused == pytest.approx(full - hops + 1)
        assert reused == expected_passes(InversionConfig(steps, refinements, reuse_last=True))


def test_those_that_share_their_way_reuse_what_each_alone_would_have() -> None:
    schedule, images = NoiseSchedule.scaled_linear(), [0, 0, 1, 0, 1]
    x0 = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[images]
    t = torch.tensor([130, 480, 480, 900, 999])
    options = {"steps": 6, "refinements": 2, "reuse_last": True}
    alone = invert(x0, t, lambda x, t, rows: policy(x, t), schedule, InversionConfig(**options))
    shared = invert(x0, t, lambda x, t, rows: policy(x, t), schedule, InversionConfig(**options), images=images)
    torch.testing.assert_close(shared.x_t, alone.x_t, rtol=0, atol=1e-12)
    assert shared.passes < alone.passes


def test_what_reusing_does_to_the_path_shrinks_with_the_hops() -> None:
    schedule = NoiseSchedule.scaled_linear()
    x0, t = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None], torch.full((9,), 801)

    def apart(steps: int) -> float:
        full, reused = (
            invert(
                x0,
                t,
                lambda x, t, rows: policy(x, t),
                schedule,
                InversionConfig(steps=steps, reuse_last=reuse, skip_first=True),
            ).x_t
            for reuse in (False, True)
        )
        return float((full - reused).norm())

    assert apart(20) > 1.6 * apart(40) > 1.6**2 * apart(80) > 0
