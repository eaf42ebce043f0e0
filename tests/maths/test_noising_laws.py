"""Laws of inversion: a batch in which every sample has its own t, round trips, costs."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smpo.maths.hops import InversionConfig, expected_passes
from smpo.maths.inversion import ddim_sample, denoise, inversion_steps, invert, move
from smpo.maths.schedule import NoiseSchedule

from .toys import policy, random, velocity_of


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=6),
    st.integers(1, 12),
    st.sampled_from(["epsilon", "v_prediction"]),
    st.booleans(),
)
def test_round_trip_at_the_fixed_point(ts: list[int], steps: int, prediction: str, skip: bool) -> None:
    """Invert to convergence, then DDIM back: x0 again, each sample from its own timestep."""
    schedule = NoiseSchedule.scaled_linear(prediction=prediction)
    x0, t = random(len(ts), 2, 3), torch.tensor(ts)

    def gentle(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        eps = 0.1 * torch.sin(x) + 1e-4 * t.reshape(-1, 1, 1)
        return eps if prediction == "epsilon" else velocity_of(eps, x, t)

    options: dict[str, Any] = {"steps": steps, "skip_first": skip}
    noised = invert(x0, t, gentle, schedule, InversionConfig(refinements=20, combine="last", **options))
    back = denoise(noised.x_t, t, gentle, schedule, **options)
    torch.testing.assert_close(back, x0, atol=1e-9, rtol=1e-9)


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=7),
    st.sampled_from(["exact", "lt_0_22", "ge_0_22"]),
    st.integers(1, 12),
    st.integers(0, 2),
    st.sampled_from(["one", "alpha0"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_batch_is_a_loop_over_singles_in_any_order(
    ts: list[int], convention: str, steps: int, refinements: int, start: str, skip: bool, random_order: Any
) -> None:
    schedule = NoiseSchedule.scaled_linear()
    x0, t = random(len(ts), 2, 2), torch.tensor(ts)
    style = random(len(ts), 1, 1, seed=1)  # conditioning: each sample has its own
    asked: list[int] = []

    def conditioned(style: Tensor) -> Any:
        def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            asked.extend(rows.tolist())
            return policy(x, t) + 0.1 * torch.sin(x + style[rows])

        return predict

    options: dict[str, Any] = {
        "convention": convention,
        "steps": steps,
        "refinements": refinements,
        "start": start,
        "skip_first": skip and convention == "exact",
    }
    batch = invert(x0, t, conditioned(style), schedule, InversionConfig(**options))
    # Only samples that still move cost a pass, and exactly as many as `smpo.maths.hops` computes.
    price = [expected_passes(InversionConfig(**options), t_min=level, t_max=level) for level in ts]
    assert [asked.count(i) for i in range(len(ts))] == price
    assert batch.passes == sum(price)

    order = list(range(len(ts)))
    random_order.shuffle(order)
    shuffled = invert(x0[order], t[order], conditioned(style[order]), schedule, InversionConfig(**options))
    torch.testing.assert_close(shuffled.x_t, batch.x_t[order])
    torch.testing.assert_close(shuffled.noise, batch.noise[order])
    for i in range(len(ts)):
        row = slice(i, i + 1)
        single = invert(x0[row], t[row], conditioned(style[row]), schedule, InversionConfig(**options))
        torch.testing.assert_close(batch.x_t[row], single.x_t)
        torch.testing.assert_close(batch.noise[row], single.noise)


def test_mean_cost_over_all_timesteps_is_the_expected_one(schedule) -> None:
    x0, t = torch.zeros(1000, 1), torch.arange(1000)
    for convention, mean in (("exact", 12.96), ("lt_0_22", 12.78), ("ge_0_22", 10.98)):
        spent = invert(x0, t, policy, schedule, InversionConfig(steps=10, convention=convention)).passes
        assert (
            spent / 1000
            == expected_passes(InversionConfig(10, 1, convention=convention))
            == pytest.approx(mean, abs=0.05)
        )


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5), st.integers(0, 3))
def test_one_hop_from_the_clean_latent_gives_back_the_predicted_noise(ts: list[int], refinements: int) -> None:
    schedule = NoiseSchedule.scaled_linear()
    x0, t = random(len(ts), 4), torch.tensor(ts)
    options: dict[str, Any] = {"steps": 1, "skip_first": True, "refinements": refinements}
    (hop,) = inversion_steps(x0, t, policy, schedule, InversionConfig(**options))
    noised = invert(x0, t, policy, schedule, InversionConfig(**options))
    torch.testing.assert_close(noised.noise[hop.rows], hop.noise)
    torch.testing.assert_close(schedule.add_noise(x0, noised.noise, t), noised.x_t)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.integers(1, 10))
def test_a_constant_prediction_is_the_noise_whatever_the_path(ts: list[int], steps: int) -> None:
    schedule = NoiseSchedule.scaled_linear()
    x0, eps, t = random(len(ts), 4), random(len(ts), 4, seed=1), torch.tensor(ts)
    noised = invert(x0, t, lambda x, t, rows: eps[rows], schedule, InversionConfig(steps=steps))
    torch.testing.assert_close(noised.noise, eps)
    torch.testing.assert_close(noised.x_t, schedule.add_noise(x0, eps, t))


def test_moves_compose_and_reverse(schedule) -> None:
    x, eps = random(3, 2, 2), random(3, 2, 2, seed=1)
    a, b, c = (schedule.abar_exact(torch.tensor(ts), x) for ts in ([1, 5, 9], [90, 400, 80], [950, 500, 700]))
    torch.testing.assert_close(move(move(x, eps, a, b), eps, b, c), move(x, eps, a, c))
    torch.testing.assert_close(move(move(x, eps, a, c), eps, c, a), x)
    torch.testing.assert_close(move(x, eps, b, b), x)


def test_velocity_and_noise_models_walk_the_same_path() -> None:
    """One network in two parameterisations."""
    eps_schedule = NoiseSchedule.scaled_linear()
    v_schedule = NoiseSchedule.scaled_linear(prediction="v_prediction")

    def velocity(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return velocity_of(policy(x, t), x, t)

    x0, t = random(4, 3), torch.tensor([0, 150, 473, 999])
    one = invert(x0, t, policy, eps_schedule, InversionConfig(steps=10))
    two = invert(x0, t, velocity, v_schedule, InversionConfig(steps=10))
    torch.testing.assert_close(one.x_t, two.x_t)
    torch.testing.assert_close(ddim_sample(x0, policy, eps_schedule, 10), ddim_sample(x0, velocity, v_schedule, 10))


def test_explicit_weights_override(schedule) -> None:
    x0, t = random(2, 3), torch.tensor([150, 800])
    named = invert(x0, t, policy, schedule, InversionConfig(steps=5, refinements=2, combine="last"))
    spelt = invert(x0, t, policy, schedule, InversionConfig(steps=5, refinements=2, weights=[0, 0, 1]))
    assert torch.equal(named.x_t, spelt.x_t)
    plain = invert(x0, t, policy, schedule, InversionConfig(steps=5, refinements=0))
    first = invert(x0, t, policy, schedule, InversionConfig(steps=5, refinements=1, weights=[1, 0]))
    torch.testing.assert_close(first.x_t, plain.x_t)
    assert torch.equal(plain.x_t, invert(x0, t, policy, schedule, InversionConfig(steps=5, combine="none")).x_t)
