"""Schedules and conversions against golden values and against diffusers' own schedulers."""

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smpo.maths.schedule import NoiseSchedule

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "scaled_linear": SD,
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200},
    "trained": {"trained_betas": [0.1, 0.2, 0.3, 0.4]},
    "zero_snr": {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "defaults": {},
}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_golden_table(golden, schedule, close) -> None:
    a = golden["A_schedule"]
    for key, value in a["abar_float64"].items():
        close(schedule.alphas_cumprod[int(key)], value, atol=1e-15, rtol=1e-13)
    theirs = DDPMScheduler(**SD).alphas_cumprod
    for key, value in a["abar_as_diffusers_float32"].items():
        close(theirs[int(key)], value, atol=1e-7)
        close(schedule.alphas_cumprod[int(key)], value, atol=5e-7)
    for key, value in a["abar_float16_of_float32"].items():
        assert float(theirs[int(key)].half()) == value


@pytest.mark.parametrize("name", CONFIGS)
def test_table_and_prediction_read_from_a_diffusers_config(name: str) -> None:
    theirs = DDIMScheduler(**CONFIGS[name])
    ours = NoiseSchedule.from_config(theirs.config)
    assert ours.alphas_cumprod.dtype is torch.float64
    assert ours.prediction == theirs.config.prediction_type
    assert theirs.config.num_train_timesteps == ours.T or name == "trained"
    torch.testing.assert_close(ours.alphas_cumprod.float(), theirs.alphas_cumprod, atol=2e-6, rtol=0)
    # Missing keys mean DDIMScheduler's defaults.
    again = NoiseSchedule.from_config(CONFIGS[name])
    torch.testing.assert_close(again.alphas_cumprod, ours.alphas_cumprod)


def test_zero_terminal_snr_is_exactly_zero_and_keeps_the_first_level() -> None:
    plain, rescaled = NoiseSchedule.scaled_linear(), NoiseSchedule.scaled_linear(zero_terminal_snr=True)
    assert rescaled.alphas_cumprod[-1] == 0
    torch.testing.assert_close(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0])
    assert (rescaled.alphas_cumprod.diff() < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noising_and_velocity_agree_with_diffusers(dtype: torch.dtype) -> None:
    theirs = DDPMScheduler(**SD, prediction_type="v_prediction")
    ours = NoiseSchedule.from_config(theirs.config)
    x0, eps = random(4, 3, 5, 5, dtype=dtype), random(4, 3, 5, 5, seed=1, dtype=dtype)
    t = torch.tensor([0, 7, 473, 999])
    near = {"atol": 2e-5, "rtol": 1e-4}  # their table is float32
    torch.testing.assert_close(ours.add_noise(x0, eps, t), theirs.add_noise(x0, eps, t), **near)
    torch.testing.assert_close(ours.target_from_noise(x0, eps, t), theirs.get_velocity(x0, eps, t), **near)


def test_golden_velocity_conversions(golden, close) -> None:
    g = golden["E_v_and_flow"]["v_prediction"]
    x, v = (torch.tensor([g[k]], dtype=torch.float64) for k in ("x_t", "v"))
    s, t = NoiseSchedule.scaled_linear(prediction="v_prediction"), torch.tensor([g["t"]])
    close(s.epsilon(v, x, t)[0], g["eps=sa*v+sb*x"])
    close(s.x0(v, x, t)[0], g["x0=sa*x-sb*v"])


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5), st.sampled_from(["epsilon", "v_prediction"]))
def test_conversions_recover_what_was_mixed(ts: list[int], prediction: str) -> None:
    s = NoiseSchedule.scaled_linear(prediction=prediction)
    x0, eps, t = random(len(ts), 2, 3), random(len(ts), 2, 3, seed=1), torch.tensor(ts)
    x = s.add_noise(x0, eps, t)
    perfect = s.target_from_noise(x0, eps, t)
    torch.testing.assert_close(s.epsilon(perfect, x, t), eps)
    torch.testing.assert_close(s.x0(perfect, x, t), x0)
    torch.testing.assert_close(s.noise_between(x0, x, t), eps)


def test_velocity_survives_zero_terminal_snr() -> None:
    s = NoiseSchedule.scaled_linear(zero_terminal_snr=True, prediction="v_prediction")
    x0, eps, t = random(2, 3), random(2, 3, seed=1), torch.tensor([999, 998])
    x = s.add_noise(x0, eps, t)
    v = s.target_from_noise(x0, eps, t)
    torch.testing.assert_close(v[0], -x0[0])
    torch.testing.assert_close(s.x0(v, x, t), x0)
    torch.testing.assert_close(s.epsilon(v, x, t), eps)


def test_squared_error_in_v_space_is_that_in_noise_space_over_abar() -> None:
    s = NoiseSchedule.scaled_linear(prediction="v_prediction")
    x, v, w = random(3, 4), random(3, 4, seed=1), random(3, 4, seed=2)
    t = torch.tensor([3, 473, 990])
    gap = (s.epsilon(v, x, t) - s.epsilon(w, x, t)).square()
    torch.testing.assert_close(gap / s.abar(t, x), (v - w).square())


def test_errors_are_compared_in_the_space_that_was_asked_for() -> None:
    x0, eps, v = random(3, 4), random(3, 4, seed=1), random(3, 4, seed=2)
    t = torch.tensor([3, 473, 999])
    for prediction in ("epsilon", "v_prediction"):
        noise = NoiseSchedule.scaled_linear(prediction=prediction)
        own = dataclasses.replace(noise, compare="output")
        x = noise.add_noise(x0, eps, t)
        torch.testing.assert_close(noise.compared_target(x0, eps, t), eps)
        assert torch.equal(own.compared(v, x, t), v)
        right = own.target_from_noise(x0, eps, t)  # the network's output without error: none in either space
        for space in (noise, own):
            torch.testing.assert_close(space.compared(right, x, t), space.compared_target(x0, eps, t))
    # Through ᾱ = 0 only the network's own space has anything to say.
    zero = NoiseSchedule.scaled_linear(zero_terminal_snr=True, prediction="v_prediction")
    last, other = torch.tensor([999]), random(1, 4, seed=3)
    assert torch.equal(zero.compared(v[:1], x[:1], last), zero.compared(other, x[:1], last))
    assert zero.ends_in_noise and not noise.ends_in_noise


def test_the_official_rounding_is_what_float16_makes_of_it() -> None:
    s, x0, x = NoiseSchedule.scaled_linear(), random(2, 4).float(), random(2, 4, seed=1).float()
    t = torch.tensor([0, 473])
    rounded = s.noise_between(x0, x, t, half=True)
    for i, level in enumerate(t.tolist()):
        a = s.alphas_cumprod[level].half()
        expected = (x[i] - float(a**0.5) * x0[i]) / float((1 - a) ** 0.5)
        torch.testing.assert_close(rounded[i], expected)
    exact = s.noise_between(x0, x, t)
    assert float((rounded[0] / exact[0] - 1).abs().max()) > 0.05, "this is how much it matters at t = 0"


def test_half_precision_latents_get_coefficients_rounded_once() -> None:
    s, t = NoiseSchedule.scaled_linear(), torch.tensor([0])
    _, noise = s.coefficients(t, torch.zeros(1, 1, dtype=torch.float16))
    exact = (1 - s.alphas_cumprod[0]).sqrt()
    assert abs(float(noise) / float(exact) - 1) < 1e-3  # the official float16 ᾱ is 7 % off here
    assert s.noise_between(torch.zeros(1, 1).half(), torch.ones(1, 1).half(), t).dtype is torch.float32


def test_shapes_dtypes_and_moving() -> None:
    s = NoiseSchedule.scaled_linear()
    like = torch.zeros(3, 4, 8, 8, dtype=torch.bfloat16)
    t = torch.tensor([1, 2, 3])
    assert s.abar(t, like).shape == (3, 1, 1, 1) and s.abar(t, like).dtype is torch.bfloat16
    assert s.abar_exact(t, like).dtype is torch.float64
    moved = s.to("meta")
    assert moved.alphas_cumprod.device.type == "meta" and s.alphas_cumprod.device.type == "cpu"


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_off_the_table_do_not_wrap_round(t: int) -> None:
    with pytest.raises(IndexError):
        NoiseSchedule.scaled_linear().abar(torch.tensor([t]), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
        ({"prediction_type": "sample"}, "prediction type 'sample'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
        ({"trained_betas": [0.1, 1.0]}, "strictly between"),
    ],
)
def test_unreadable_configs_say_why(config: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NoiseSchedule.from_config(config)


@pytest.mark.parametrize("table", [torch.zeros(0), torch.zeros(2, 2), torch.ones(3, dtype=torch.int64)])
def test_a_table_must_be_a_list_of_numbers(table: Tensor) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        NoiseSchedule(table)
