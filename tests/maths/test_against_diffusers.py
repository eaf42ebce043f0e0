"""Our walks against diffusers' own schedulers, driven by the loops that people use."""

from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from smpo.maths.hops import InversionConfig
from smpo.maths.inversion import ddim_sample, invert
from smpo.maths.schedule import NoiseSchedule

SD: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,  # the default, True, ruins latents
}


def predict(x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
    return 0.3 * torch.sin(x) + 0.05 * t.reshape(-1, *(1,) * (x.ndim - 1)).to(x.dtype) / 1000


def latents(n: int) -> Tensor:
    return torch.randn(n, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def in_float64(scheduler: Any, schedule: NoiseSchedule, one: bool, name: str) -> Any:
    """Replace its float32 table by ours, so that agreement can be asked to rounding."""
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    first = torch.tensor(1.0, dtype=torch.float64) if one else schedule.alphas_cumprod[0]
    setattr(scheduler, name, first)
    return scheduler


@pytest.mark.parametrize("one", [False, True], ids=["alpha0", "one"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("steps", "offset"), [(1, 1), (7, 0), (10, 1), (50, 1), (1000, 0)])
def test_ddim_sampling(steps: int, offset: int, prediction: str, one: bool) -> None:
    config = SD | {"prediction_type": prediction, "set_alpha_to_one": one, "steps_offset": offset}
    theirs = DDIMScheduler(**config)
    schedule = NoiseSchedule.from_config(theirs.config)
    in_float64(theirs, schedule, one, "final_alpha_cumprod")
    theirs.set_timesteps(steps)
    x = start = latents(2)
    for t in theirs.timesteps:
        x = theirs.step(predict(x, t.reshape(1)), t, x).prev_sample
    ours = ddim_sample(start, predict, schedule, steps, offset=offset, set_alpha_to_one=one)
    torch.testing.assert_close(ours, x, atol=1e-11, rtol=1e-11)


def test_ddim_sampling_with_zero_terminal_snr() -> None:
    config = SD | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "set_alpha_to_one": False,
    }
    theirs = DDIMScheduler(**config)
    schedule = NoiseSchedule.from_config(theirs.config)
    theirs.set_timesteps(10)
    x = start = latents(2)
    for t in theirs.timesteps:
        x = theirs.step(predict(x, t.reshape(1)), t, x).prev_sample
    torch.testing.assert_close(ddim_sample(start, predict, schedule, 10), x, atol=1e-4, rtol=1e-4)


TIMESTEPS = [0, 1, 2, 150, 201, 202, 473, 801, 802, 999]


@pytest.mark.parametrize("one", [False, True], ids=["alpha0", "one"])
@pytest.mark.parametrize("renoise", [False, True], ids=["ddim", "renoise"])
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_the_official_loop_on_the_installed_inverse_scheduler(steps: int, renoise: bool, one: bool) -> None:
    """ge_0_22 is what the official training loop does with a current diffusers, one sample at a time."""
    schedule = NoiseSchedule.scaled_linear()
    theirs = DDIMInverseScheduler(**SD, set_alpha_to_one=one)
    in_float64(theirs, schedule, one, "initial_alpha_cumprod")
    theirs.set_timesteps(steps)
    x0, ends = latents(len(TIMESTEPS)), []
    for x, t in zip(x0.split(1), TIMESTEPS, strict=True):
        for g in theirs.timesteps[theirs.timesteps < t]:
            first = predict(x, g.reshape(1))
            direction = first
            if renoise:
                guess = theirs.step(first, g, x).prev_sample
                direction = (first + predict(guess, g.reshape(1))) / 2
            x = theirs.step(direction, g, x).prev_sample
        ends.append(x)
    ours = invert(
        x0,
        torch.tensor(TIMESTEPS),
        predict,
        schedule,
        InversionConfig(steps=steps, convention="ge_0_22", start="one" if one else "alpha0", refinements=int(renoise)),
    )
    torch.testing.assert_close(ours.x_t, torch.cat(ends), atol=1e-13, rtol=1e-13)


def test_float32_tables_move_the_result_by_rounding_only() -> None:
    theirs = DDIMInverseScheduler(**SD, set_alpha_to_one=False)
    theirs.set_timesteps(10)
    x = start = latents(1)
    for g in theirs.timesteps:
        x = theirs.step(predict(x, g.reshape(1)), g, x).prev_sample
    ours = invert(
        start,
        torch.tensor([999]),
        predict,
        NoiseSchedule.from_config(theirs.config),
        InversionConfig(steps=10, convention="ge_0_22", start="alpha0", combine="none"),
    )
    torch.testing.assert_close(ours.x_t, x, atol=5e-6, rtol=5e-6)
