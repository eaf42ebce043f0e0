"""Objectives that need more than the implicit margin: unpaired, reference-free, or step by step.

Unreduced like everything in `losses`: one value per pair or image. `gap` and `error` are those of
`losses.error_gap` and `losses.denoising_error`.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from smpo.maths.schedule import widen


def sft(error_winner: Tensor) -> Tensor:
    """The winner's denoising error and nothing else: supervised fine-tuning. [B] -> [B]."""
    return error_winner


def kto_baseline(gap: Tensor) -> Tensor:
    """z0 = max(0, mean(-gap)), detached: how much the policy improved on average. Scalar.

    Take the mean over the *global* batch, as the official code does; across devices that is the caller's.
    """
    return (-gap.detach()).mean().clamp(min=0)


def kto(
    gap: Tensor,
    desirable: Tensor,
    beta: float,
    *,
    baseline: Tensor | None = None,
    utility: Literal["kto", "loss_averse", "risk_seeking"] = "kto",
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Tensor:
    """λ_y (1 - U(u)), u = ±β(g - z0), g = -gap. Diffusion-KTO (Li et al. 2024), for single labelled images.

    `gap` [N], `desirable` [N] bool (+ if true); note: no 1/2 with β here. `baseline` is z0, from this batch
    unless given. Utilities: kto σ(u); loss-averse log σ(u); risk-seeking -log σ(-u).
    """
    z0 = kto_baseline(gap) if baseline is None else baseline
    wanted = desirable.bool()
    gain = beta * (-gap - z0)
    u = torch.where(wanted, gain, -gain)
    if utility == "kto":
        loss = torch.sigmoid(-u)  # 1 - σ(u), accurate when u is large
    elif utility == "loss_averse":
        loss = 1 + softplus(-u)
    elif utility == "risk_seeking":
        loss = 1 - softplus(u)
    else:
        raise ValueError(f"unknown utility {utility!r}; choose kto, loss_averse or risk_seeking.")
    return torch.where(wanted, weight_desirable * loss, weight_undesirable * loss)


def mapo(error_winner: Tensor, error_loser: Tensor, *, beta: float = 0.1, snr: float = 0.5, T: float = 1000) -> Tensor:
    """e_w - β log σ(T·(φ(e_w) - φ(e_l))), φ(ℓ) = sℓ/(exp(sℓ)-1). MaPO (Hong et al. 2024) as released.

    Reference-free: [B], [B] -> [B]. The form printed in the paper's second version is `mapo_power`.
    """
    margin = _bernoulli(snr * error_winner) - _bernoulli(snr * error_loser)
    return error_winner - beta * logsigmoid(T * margin)


def mapo_power(error_winner: Tensor, error_loser: Tensor, *, beta: float = 8.0) -> Tensor:
    """e_w - log σ(φ_β(e_w) - φ_β(e_l))/β, φ_β(ℓ) = (ℓ/(exp ℓ - 1))^β. MaPO, second version of the paper.

    Unverified: read from a garbled text, and the released code computes `mapo`.
    """
    margin = _bernoulli(error_winner) ** beta - _bernoulli(error_loser) ** beta
    return error_winner - logsigmoid(margin) / beta


def dspo(target: Tensor, policy: Tensor, reference: Tensor, margin: Tensor, beta: float) -> Tensor:
    """mean ((ε_θ - target) - β(1-σ(h))(ε_θ - ε_ref))² on the winner. DSPO (Zhu et al. 2025), SD 1.5 branch.

    Tensors [B, ...] of the winner, `margin` [B] with the same β -> [B]. The gradient flows through h too, as
    in the released code. Its SDXL branch is a different, ad hoc rule and isn't offered.
    """
    a = widen(policy)
    pull = beta * torch.sigmoid(-margin).reshape(-1, *(1,) * (a.ndim - 1))
    return ((a - widen(target)) - pull * (a - widen(reference))).square().flatten(1).mean(dim=1)


def inversion_dpo(distance_winner: Tensor, distance_loser: Tensor, abar: Tensor, beta: float) -> Tensor:
    """-log σ(β/2 · mean_s ω_s (d_w - d_l)), ω = 1/(2ᾱ). Inversion-DPO (Li et al. 2025), from its code.

    `distance_*` [S, B] hold mean (ε_θ - ε_ref)² at S levels of the reference's inversion, `abar` [S] or [S, B] their ᾱ.
    -> [B]. Beware: both terms are quadratic in θ - θ_ref, so training from the reference has no gradient; and
    the supplement of Diffusion-DPO prints the analogous formula with the opposite sign.
    """
    omega = (0.5 / abar).to(distance_winner.dtype).reshape(len(abar), -1)
    return softplus(-0.5 * beta * (omega * (distance_winner - distance_loser)).mean(dim=0))


def _bernoulli(y: Tensor) -> Tensor:
    """y/(exp(y)-1) for y >= 0: 1 at y = 0, no overflow at large y, and a finite gradient at both ends."""
    small = y < 0.1
    # The branch not taken must stay finite as well, or its zero gradient becomes nan.
    z = torch.where(small, torch.ones_like(y), y)
    series = 1 - y / 2 + y**2 / 12 - y**4 / 720 + y**6 / 30240
    return torch.where(small, series, z * torch.exp(-z) / -torch.expm1(-z))
