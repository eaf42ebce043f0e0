"""Rectified flow: golden paths, conversions, and the batch laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smpo.maths import flow
from smpo.maths.flow import invert_flow

from .conftest import f64


def velocity(x: Tensor, s: Tensor, rows: Tensor | None = None) -> Tensor:
    return 0.3 * x + 0.05 * s.reshape(-1, *(1,) * (x.ndim - 1))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("euler_forward_source_time", {"refinements": 0, "time": "source"}),
        ("one_step_renoise_avg_destination_time", {}),
    ],
)
def test_golden_paths_with_all_levels_in_one_batch(key: str, options: dict, golden, close) -> None:
    g = golden["E_v_and_flow"]["flow"]
    sigmas = g["sigmas"]
    path = f64(g[key])  # [level, winner or loser, 4]
    sigma = f64(sigmas[1:]).repeat_interleave(2)
    x0 = path[0].repeat(len(sigmas) - 1, 1)
    noised = invert_flow(x0, sigma, velocity, levels=sigmas, **options)
    close(noised.x_t, path[1:].flatten(0, 1))
    close(flow.interpolate(x0, noised.noise, sigma), noised.x_t)
    if not options:
        at = sigmas.index(0.45) - 1
        v = flow.inverted_velocity(x0, noised.x_t, sigma)
        close(v[2 * at : 2 * at + 2], g["v_target_at_sigma0.45"])
        close(v, noised.noise - x0)  # the same target in two parameterisations


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(0, 3))
def test_a_batch_is_a_loop_over_singles(sigmas: list[float], refinements: int) -> None:
    x0, sigma = random(len(sigmas), 3), f64(sigmas)
    options = {"levels": [0.0, 0.25, 0.5, 0.75], "refinements": refinements}
    batch = invert_flow(x0, sigma, velocity, **options)
    singles = [invert_flow(x0[i : i + 1], sigma[i : i + 1], velocity, **options) for i in range(len(sigmas))]
    torch.testing.assert_close(batch.x_t, torch.cat([one.x_t for one in singles]))
    assert batch.passes == sum(one.passes for one in singles)
    hops = sum(level < s for s in sigmas for level in options["levels"])
    assert batch.passes == hops * (refinements + 1)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_conversions_and_straight_paths(sigmas: list[float]) -> None:
    x0, eps, sigma = random(len(sigmas), 3), random(len(sigmas), 3, seed=1), f64(sigmas)
    x, v = flow.interpolate(x0, eps, sigma), flow.velocity_target(x0, eps)
    torch.testing.assert_close(flow.epsilon(v, x, sigma), eps)
    torch.testing.assert_close(flow.clean(v, x, sigma), x0)
    # A perfect network sends the image straight back to its noise.
    noised = invert_flow(x0, sigma, lambda x, s, rows: v[rows], levels=[0, 0.3, 0.6])
    torch.testing.assert_close(noised.x_t, x)
    torch.testing.assert_close(noised.noise, eps)


def test_shift_keeps_the_ends_and_lifts_the_middle() -> None:
    levels = f64([0, 0.25, 0.5, 1])
    torch.testing.assert_close(flow.shift_levels(levels, 3.0), f64([0, 0.5, 0.75, 1]))
    torch.testing.assert_close(flow.shift_levels(levels, 1.0), levels)


@pytest.mark.parametrize("levels", [[], [0.1, 0.5], [0, 0.5, 0.5], [0, 1.1]])
def test_levels_must_ascend_from_zero(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="ascend from 0"):
        invert_flow(random(1, 2), f64([0.5]), velocity, levels=levels)
