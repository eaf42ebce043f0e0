"""Losses against golden values and gradients, and against the identities that tie them together."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smpo.maths import losses
from smpo.maths.losses import denoising_error, error_gap, implicit_accuracy, implicit_margin
from smpo.maths.smoothing import signed_weight

from .conftest import f64

LOG2 = math.log(2)
margins = st.floats(-50, 50)
probability = st.floats(0, 1)


@pytest.fixture(scope="module")
def c(golden) -> dict[str, Any]:
    return golden["C_losses"]


@pytest.fixture(scope="module")
def gaps(c) -> tuple[Tensor, Tensor]:
    return tuple(error_gap(f64(c[f"tau{i}"]), f64(c[f"pol{i}"]), f64(c[f"ref{i}"])) for i in (0, 1))


@pytest.fixture(scope="module")
def margin(c, gaps) -> Tensor:
    """Winner first, as the official code orders pairs, β = 2000."""
    first = torch.tensor(c["winner_first"]["image0_is_first"])
    m = implicit_margin(*gaps, beta=2000)
    return torch.where(first, m, -m)


@pytest.fixture(scope="module")
def p_image0(golden) -> Tensor:
    return f64(golden["B_labels"]["p_image0"][:3])


def test_golden_errors_and_gaps(c, gaps, close) -> None:
    s = c["per_sample"]
    for i in (0, 1):
        tau = f64(c[f"tau{i}"])
        close(denoising_error(tau, f64(c[f"pol{i}"])), s[f"m{i}"])
        close(denoising_error(tau, f64(c[f"ref{i}"])), s[f"r{i}"])
        close(gaps[i], f64(s[f"m{i}"]) - f64(s[f"r{i}"]))
    close(gaps[0] - gaps[1], s["s0_minus_s1"])


def test_golden_pair_losses(c, margin, p_image0, close) -> None:
    g = c["losses"]
    p = torch.maximum(p_image0, 1 - p_image0)  # winner first
    close(margin, g["dpo_beta2000"]["inside"])
    close(losses.dpo(margin), g["dpo_beta2000"]["per_pair"])
    close(losses.dpo(margin).mean(), g["dpo_beta2000"]["loss"])
    close(implicit_accuracy(margin).mean(), g["dpo_beta2000"]["acc_half_ties"])
    close((margin > 0).double().mean(), g["dpo_beta2000"]["acc_strict"])
    close(signed_weight(p, 10) * margin, g["smpo_beta2000_gamma10"]["inside"])
    close(losses.smpo(margin, p), g["smpo_beta2000_gamma10"]["per_pair"])
    close(losses.smpo(margin, p).mean(), g["smpo_beta2000_gamma10"]["loss"])
    close(losses.smpo(margin, torch.ones(3), 1.0).mean(), g["smpo_alpha1_gamma1_equals_dpo"]["loss"])
    # What the official code computes for a batch: the first pair's weight for all. Not offered, only known.
    bug = losses.smpo(margin, p[:1].expand(3))
    close(bug.mean(), g["smpo_official_index0_bug_B3"]["loss"])
    close(signed_weight(p[0], 10) * margin, g["smpo_official_index0_bug_B3"]["inside"])
    close(losses.gdpo(margin, p).mean(), g["gdpo_beta2000"]["loss"])
    close(losses.cdpo(margin, 0.9).mean(), g["cdpo_eps0.1_beta2000"]["loss"])
    close(p, g["cdpo_softlabel_beta2000"]["p_hat"])
    close(losses.cdpo(margin, p).mean(), g["cdpo_softlabel_beta2000"]["loss"])
    close(losses.robust_dpo(margin, 0.1).mean(), g["robust_dpo_eps0.1_beta2000"]["loss"])
    close(2 * margin / 2000, g["ipo_beta2000"]["logits"])
    close(losses.ipo(margin, 2000).mean(), g["ipo_beta2000"]["loss"], atol=1e-15)
    close(losses.hinge(margin).mean(), g["hinge_beta2000"]["loss"])


def test_golden_signed_smpo_needs_no_order(c, gaps, p_image0, close) -> None:
    g = c["losses"]["smpo_signed_order_free"]
    m = implicit_margin(*gaps, beta=2000)
    close(signed_weight(p_image0, 10) * m, g["inside"])
    close(losses.smpo(m, p_image0).mean(), g["loss"])


@pytest.mark.parametrize("name", ["grad_smpo_signed", "grad_dpo_image0_first"])
def test_golden_gradients(name: str, c, p_image0, close) -> None:
    policy = [f64(c[f"pol{i}"]).requires_grad_() for i in (0, 1)]
    gaps = (error_gap(f64(c[f"tau{i}"]), policy[i], f64(c[f"ref{i}"])) for i in (0, 1))
    m = implicit_margin(*gaps, beta=2000)
    loss = (losses.smpo(m, p_image0) if "smpo" in name else losses.dpo(m)).mean()
    loss.backward()
    close(loss.detach(), c["losses"][name]["loss"])
    for i in (0, 1):
        close(policy[i].grad, c["losses"][name][f"dL_dpol{i}"])


# ---- identities -------------------------------------------------------------------------------------------


def test_policy_equal_to_reference_is_exactly_log_2() -> None:
    tau, a = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    gap = error_gap(tau, a, a.clone())
    assert (gap == 0).all()
    loss = losses.smpo(implicit_margin(gap, gap, 5000), torch.rand(4))
    assert (loss == torch.tensor(2.0).log()).all()


@given(margins, probability, st.floats(0.1, 20))
def test_swapping_the_images_changes_nothing(m: float, p: float, gamma: float) -> None:
    h, q = f64([m]), f64([p])
    for loss in (lambda h, q: losses.smpo(h, q, gamma), losses.gdpo, losses.cdpo):
        torch.testing.assert_close(loss(h, q), loss(-h, 1 - q), atol=1e-9, rtol=1e-9)


@given(margins, probability)
def test_family_ties(m: float, p: float) -> None:
    h, q, one = f64([m]), f64([p]), f64([1.0])
    torch.testing.assert_close(losses.smpo(h, one, 1.0), losses.dpo(h))
    torch.testing.assert_close(losses.cdpo(h, one), losses.dpo(h))
    torch.testing.assert_close(losses.robust_dpo(h, 0.0), losses.dpo(h))
    torch.testing.assert_close(losses.gdpo(10 * h, q), losses.smpo(h, q))  # β' = γβ
    # Robust DPO is unbiased: averaging it over flips gives DPO back.
    mixed = 0.8 * losses.robust_dpo(h, 0.2) + 0.2 * losses.robust_dpo(-h, 0.2)
    torch.testing.assert_close(mixed, losses.dpo(h))


@given(margins)
def test_an_undecided_pair_is_silent_in_smpo_and_not_in_cdpo(m: float) -> None:
    h = f64([m]).requires_grad_()
    loss = losses.smpo(h, f64([0.5]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(LOG2) and h.grad == 0
    pull = torch.autograd.grad(losses.cdpo(h, 0.5).sum(), h)[0]
    assert pull.item() == pytest.approx(math.tanh(m / 2) / 2)


@given(st.floats(-5, 5), st.floats(0.01, 1), st.floats(0.5, 1))
def test_losses_fall_as_the_margin_grows(m: float, step: float, p: float) -> None:
    low, high, q = f64([m]), f64([m + step]), f64([p])
    for loss in (losses.dpo, losses.hinge, lambda h: losses.smpo(h, q), lambda h: losses.robust_dpo(h, 0.1)):
        assert loss(high) <= loss(low) + 1e-12


@pytest.mark.parametrize("m", [1e4, -1e4])
def test_extreme_margins_stay_finite(m: float) -> None:
    h = torch.tensor([m], requires_grad=True)
    for loss in (losses.dpo(h), losses.smpo(h, torch.tensor([0.7])), losses.cdpo(h, 0.9), losses.hinge(h)):
        assert torch.isfinite(loss).all()
        assert torch.isfinite(torch.autograd.grad(loss.sum(), h)[0]).all()


def test_the_gap_does_not_cancel() -> None:
    """A 64x64x4 latent, policy and reference 1e-3 apart: subtraction loses what the identity keeps."""
    g = torch.Generator().manual_seed(0)
    tau, b, d = (torch.randn(8, 4, 64, 64, generator=g) for _ in range(3))
    a = b + 1e-3 * d
    exact = denoising_error(tau.double(), a.double()) - denoising_error(tau.double(), b.double())
    ours = (error_gap(tau, a, b).double() - exact).abs().max()
    theirs = ((denoising_error(tau, a) - denoising_error(tau, b)).double() - exact).abs().max()
    assert ours < 1e-10 and ours * 1000 < theirs


def test_half_precision_predictions_are_widened_first() -> None:
    tau, a = torch.ones(2, 8).bfloat16(), torch.zeros(2, 8).bfloat16()
    assert error_gap(tau, a, tau).dtype is torch.float32
    assert denoising_error(tau, a).dtype is torch.float32
    assert error_gap(tau.double(), a, tau).dtype is torch.float64


@given(st.permutations(range(5)))
def test_pairs_do_not_see_each_other(order: list[int]) -> None:
    g = torch.Generator().manual_seed(1)
    h, p = torch.randn(5, generator=g, dtype=torch.float64), torch.rand(5, generator=g, dtype=torch.float64)
    for loss in (losses.smpo, losses.gdpo, losses.cdpo):
        assert torch.equal(loss(h[order], p[order]), loss(h, p)[order])


def test_accuracy_gives_half_for_ties() -> None:
    assert implicit_accuracy(f64([2.0, 0.0, -1.0])).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("flip", [-0.1, 0.5])
def test_robust_dpo_needs_labels_better_than_chance(flip: float) -> None:
    with pytest.raises(ValueError, match="below 1/2"):
        losses.robust_dpo(torch.zeros(1), flip)
