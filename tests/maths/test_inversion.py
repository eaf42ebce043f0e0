"""Inversion against golden trajectories, and how it treats precision, gradients and odd input."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.maths.hops import InversionConfig
from smpo.maths.inversion import denoise, inversion_steps, invert
from smpo.maths.losses import denoising_error, dpo, error_gap, implicit_margin, smpo
from smpo.maths.schedule import NoiseSchedule

from .conftest import f64
from .toys import policy, random, reference

CONVENTIONS = {"lt022": "lt_0_22", "ge022": "ge_0_22", "exact": "exact"}
RENOISE: dict[str, dict[str, Any]] = {
    "none": {"combine": "none"},
    "avg": {},
    "last": {"combine": "last"},
    "K3mean": {"refinements": 3},
    "K8last": {"refinements": 8, "combine": "last"},
}


def groups(cases: dict[str, Any]) -> dict[tuple[str, ...], dict[int, Any]]:
    """Golden cases that differ in t alone: they must come out of one batch."""
    found: dict[tuple[str, ...], dict[int, Any]] = defaultdict(dict)
    for key, case in cases.items():
        convention, n, t, renoise, start = key.split("|")
        found[convention, n, renoise, start][int(t[2:])] = case
    return found


def arguments(convention: str, n: str, renoise: str, start: str) -> dict[str, Any]:
    return {
        "convention": CONVENTIONS[convention],
        "steps": int(n[2:]),
        "start": start.removeprefix("start="),
        **RENOISE[renoise.removeprefix("renoise=")],
    }


def test_golden_inversions_with_every_step_and_all_timesteps_in_one_batch(golden, schedule, close) -> None:
    d = golden["D_inversion"]
    seen = 0
    for key, cases in groups(d["cases"]).items():
        ts = sorted(cases)
        x0 = f64([d["x0_w"], d["x0_l"]]).repeat(len(ts), 1)  # winner and loser at t[0], then at t[1] ...
        t = torch.tensor(ts).repeat_interleave(2)
        log: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for step in inversion_steps(x0, t, policy, schedule, InversionConfig(**arguments(*key))):
            for i, row in enumerate(step.rows.tolist()):
                log[row].append(
                    {"from": step.source[i], "to": step.target[i], "model_time": step.time[i]}
                    | {"eps_used": step.noise[i], "x": step.x[i]}
                )
        result = invert(x0, t, policy, schedule, InversionConfig(**arguments(*key)))
        gap = error_gap(result.noise, policy(result.x_t, t), reference(result.x_t, t))
        for k, timestep in enumerate(ts):
            case, rows = cases[timestep], [2 * k, 2 * k + 1]
            close(result.x_t[rows], case["x_final"])
            close(result.noise[rows], case["tau"])
            assert len(log[rows[0]]) == len(log[rows[1]]) == len(case["steps"])
            for number, step in enumerate(case["steps"]):
                for side, row in enumerate(rows):
                    ours = log[row][number]
                    assert [int(ours[name]) for name in ("from", "to", "model_time")] == [
                        step[name] for name in ("from", "to", "model_time")
                    ]
                    close(ours["eps_used"], step["eps_used"][side])
                    close(ours["x"], step["x"][side])
            x, tt, tau = result.x_t[rows], t[rows], result.noise[rows]
            close(denoising_error(tau, policy(x, tt)), case["m"])
            close(denoising_error(tau, reference(x, tt)), case["r"])
            winner, loser = gap[rows].unbind()
            close(winner - loser, case["D"])
            margin = implicit_margin(winner, loser, 2000)
            close(margin, case["dpo_inside_beta2000"])
            close(dpo(margin), case["dpo_loss"])
            weight = d["pair_weight_gamma10"]
            close(weight * margin, case["smpo_inside_beta2000"])
            close(smpo(margin, f64(0.5 + weight / 20)), case["smpo_loss"])
            seen += 1
    assert seen == 28


def test_many_refinements_reach_the_golden_fixed_point_and_sampling_returns(golden, schedule, close) -> None:
    d = golden["D_inversion"]
    x0, t = f64([d["x0_w"], d["x0_l"]]), torch.tensor([473, 473])
    options: dict[str, Any] = {"steps": 10, "refinements": 40, "combine": "last"}
    fixed = d["fixed_point_exact_n10_t473_start_one"]
    for step, x in zip(
        inversion_steps(x0, t, policy, schedule, InversionConfig(**options)), fixed["x_per_step"], strict=True
    ):
        close(step.x[step.rows.argsort()], x, atol=1e-13)
    noised = invert(x0, t, policy, schedule, InversionConfig(**options))
    close(noised.x_t, fixed["x_final"], atol=1e-13)
    close(denoise(noised.x_t, t, policy, schedule, steps=10), x0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_and_gradients(dtype: torch.dtype, schedule) -> None:
    """States stay in float32, the network sees the latents' own dtype, and no graph is built."""
    x0 = random(2, 3).to(dtype).requires_grad_()
    scale = torch.ones((), requires_grad=True)
    seen = set()

    def predict(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        seen.add((x.dtype, torch.is_grad_enabled()))
        return scale.to(dtype) * policy(x, t)

    noised = invert(x0, torch.tensor([20, 700]), predict, schedule, InversionConfig(steps=5))
    assert seen == {(dtype, False)} and torch.is_grad_enabled()
    for value in noised[:2]:
        assert value.dtype is torch.float32 and not value.requires_grad
    next(inversion_steps(x0, torch.tensor([20, 700]), predict, schedule, InversionConfig(steps=5)))
    assert torch.is_grad_enabled()  # a suspended generator leaves its caller alone
    exact = invert(x0.double(), torch.tensor([20, 700]), policy, schedule, InversionConfig(steps=5))
    near = {torch.float16: 1e-2, torch.bfloat16: 8e-2, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(noised.noise.double(), exact.noise, atol=near, rtol=near)


def test_inputs_are_left_alone(schedule) -> None:
    x0, t = random(3, 2), torch.tensor([5, 500, 0])
    before = x0.clone()
    invert(x0, t, policy, schedule, InversionConfig(steps=5))
    denoise(x0, t, policy, schedule, steps=5)
    assert torch.equal(x0, before)


def test_velocity_inverts_and_samples_through_zero_terminal_snr() -> None:
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True, prediction="v_prediction")
    x0, t = random(2, 3), torch.tensor([999, 400])
    noised = invert(x0, t, policy, schedule, InversionConfig(steps=10, refinements=60, combine="last"))
    torch.testing.assert_close(noised.x_t[0], noised.noise[0])  # at ᾱ = 0 a latent is nothing but noise
    back = denoise(noised.x_t, t, policy, schedule, steps=10)
    torch.testing.assert_close(back, x0)


def test_a_hop_into_pure_noise_leaves_the_image_behind() -> None:
    """At ᾱ = 0 a velocity names the image alone: what is left of the latent without it is the noise."""
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True, prediction="v_prediction")
    x0, t = random(2, 3), torch.tensor([999, 999])

    def knowing(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return schedule.target_from_noise(x0, torch.zeros_like(x0), t)

    *_, before, last = inversion_steps(x0, t, knowing, schedule, InversionConfig(steps=10, refinements=1))
    signal, noise = schedule.coefficients(before.target, x0)
    torch.testing.assert_close(last.x, (before.x - signal * x0) / noise)
    # From the clean latent in one hop nothing tells image and noise apart: finite, no more.
    noised = invert(x0, t, knowing, schedule, InversionConfig(steps=1, refinements=1, skip_first=True))
    assert torch.isfinite(noised.x_t).all() and torch.equal(noised.x_t, noised.noise)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"combine": "median"}, "unknown combine"),
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"weights": [1.0]}, "2 numbers"),
        ({"start": "zero"}, "choose one or alpha0"),
        ({"convention": "lt_0_22", "skip_first": True}, "skip_first"),
        ({"steps": 1001}, "between 1 and 1000"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], words: str, schedule) -> None:
    with pytest.raises(ValueError, match=words):
        invert(random(2, 3), torch.tensor([10, 20]), policy, schedule, InversionConfig(**{"steps": 5} | options))


def test_timesteps_must_match_the_batch(schedule) -> None:
    with pytest.raises(ValueError, match="one timestep per sample"):
        invert(random(2, 3), torch.tensor([10]), policy, schedule, InversionConfig(steps=5))
