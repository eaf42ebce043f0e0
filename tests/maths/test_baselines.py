"""The objectives that are not functions of the margin."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.maths import baselines
from smpo.maths.losses import denoising_error, error_gap, implicit_margin

from .conftest import f64


@pytest.fixture(scope="module")
def wl(golden):
    """(winner, loser), each a dict of tau, pol, ref [3, 2, 2, 2], in the official winner-first order."""
    c = golden["C_losses"]
    first = torch.tensor(c["winner_first"]["image0_is_first"]).reshape(3, 1, 1, 1)
    one, two = ({k: f64(c[f"{k}{i}"]) for k in ("tau", "pol", "ref")} for i in (0, 1))
    return {k: torch.where(first, one[k], two[k]) for k in one}, {k: torch.where(first, two[k], one[k]) for k in one}


@pytest.fixture(scope="module")
def errors(wl):
    return tuple(denoising_error(x["tau"], x["pol"]) for x in wl)


@pytest.fixture(scope="module")
def gaps(wl):
    return tuple(error_gap(x["tau"], x["pol"], x["ref"]) for x in wl)


def test_golden_sft(golden, errors, close) -> None:
    close(errors[0], golden["C_losses"]["winner_first"]["m_w"])
    close(errors[1], golden["C_losses"]["winner_first"]["m_l"])
    close(baselines.sft(errors[0]).mean(), golden["C_losses"]["losses"]["sft"]["loss"])


@pytest.mark.parametrize("utility", ["kto", "loss_averse", "risk_seeking"])
def test_golden_kto(utility: str, golden, gaps, close) -> None:
    g = golden["C_losses"]["losses"][f"diffusion_kto_{utility}_beta1000"]
    gap = torch.cat(gaps)
    desirable = torch.tensor([True] * 3 + [False] * 3)
    close(-gap, g["g"])
    close(baselines.kto_baseline(gap), g["z0"])
    loss = baselines.kto(gap, desirable, 1000, utility=utility)
    close(loss, g["per_image"])
    close(loss.mean(), g["loss"])
    given_baseline = baselines.kto(gap, desirable, 1000, utility=utility, baseline=f64(g["z0"]))
    close(given_baseline, g["per_image"])


def test_golden_mapo(golden, errors, close) -> None:
    g = golden["C_losses"]["losses"]
    for error, key in zip(errors, ("phi_w", "phi_l"), strict=True):
        close(baselines._bernoulli(0.5 * error), g["mapo_code_s0.5_beta0.1_T1000"][key])
    close(baselines.mapo(*errors).mean(), g["mapo_code_s0.5_beta0.1_T1000"]["loss"])
    close(baselines.mapo_power(*errors).mean(), g["mapo_paper_v2_beta8(power form, unverified)"]["loss"])


def test_golden_dspo(golden, wl, gaps, close) -> None:
    w = wl[0]
    loss = baselines.dspo(w["tau"], w["pol"], w["ref"], implicit_margin(*gaps, beta=0.001), 0.001)
    assert loss.shape == (3,)
    close(loss.mean(), golden["C_losses"]["losses"]["dspo_sd15_beta0.001"]["loss"])


def test_golden_inversion_dpo(golden, schedule, close) -> None:
    g = golden["C_losses"]["losses"]["inversion_dpo_beta2000_S2"]
    abar = schedule.alphas_cumprod[g["timesteps"]]
    close(0.5 / abar, g["weights"])
    loss = baselines.inversion_dpo(f64(g["dw"])[:, None], f64(g["dl"])[:, None], abar, 2000)
    assert loss.shape == (1,)
    close(loss[0], g["loss"])
    close(torch.expm1(loss).log()[0], -g["inside"])  # loss = log(1 + exp(-inside))


def test_kto_at_the_reference_is_one_half_and_its_baseline_carries_no_gradient() -> None:
    gap = torch.zeros(4, requires_grad=True)
    loss = baselines.kto(gap, torch.tensor([1, 0, 1, 0]), 1000.0)
    assert (loss == 0.5).all()
    assert not baselines.kto_baseline(gap).requires_grad
    assert baselines.kto_baseline(f64([1.0, 2.0])) == 0  # a policy that got worse is not compared with itself
    weighted = baselines.kto(gap, torch.tensor([1, 0, 1, 0]), 1000.0, weight_desirable=2, weight_undesirable=3)
    assert weighted.tolist() == [1.0, 1.5, 1.0, 1.5]
    with pytest.raises(ValueError, match="unknown utility"):
        baselines.kto(gap, torch.ones(4), 1.0, utility="bold")


@given(st.floats(0, 400))
def test_mapos_function_is_smooth_and_finite_everywhere(y: float) -> None:
    z = f64([y]).requires_grad_()
    value = baselines._bernoulli(z)
    slope = torch.autograd.grad(value.sum(), z)[0]
    assert value.item() == pytest.approx(y / math.expm1(y) if y > 1e-300 else 1.0, abs=1e-12)
    assert -0.5 - 1e-9 <= slope.item() <= 0  # from -1/2 at 0, rising to 0
    if 0.09 < y < 0.11:  # across the seam of the two formulas
        assert slope.item() == pytest.approx(-0.5 + y / 6 - y**3 / 180, abs=1e-6)


def test_inversion_dpo_is_stationary_at_the_reference() -> None:
    step = torch.zeros(3, 2, requires_grad=True)  # a deviation from the reference
    loss = baselines.inversion_dpo(step.square(), (2 * step).square(), torch.full((3,), 0.5), 2000)
    assert torch.autograd.grad(loss.sum(), step)[0].abs().max() == 0


def test_dspo_without_pull_is_sft() -> None:
    tau, a, b = (torch.randn(4, 2, 3) for _ in range(3))
    loss = baselines.dspo(tau, a, b, torch.zeros(4), 0.0)
    torch.testing.assert_close(loss, denoising_error(tau, a))
