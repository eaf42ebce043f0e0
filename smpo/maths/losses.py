"""Preference losses that see a pair through one number: the implicit margin.

    e(a)   = mean over elements of (target - a)²                    denoising error, [B]
    gap    = e(policy) - e(reference)                               negative: the policy denoises better
    margin = -β/2 · (gap_winner - gap_loser)                        positive: the policy moved to the winner

Element *means* and the 1/2 follow the Diffusion-DPO and SmPO code, to which every published β refers (the
papers print a sum). Every loss below takes the margin first and returns one value per pair: [B] in, [B] out,
unreduced. p is the probability that the first image is preferred. Losses that need more than the margin are
in `baselines`.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from smpo.maths.schedule import widen
from smpo.maths.smoothing import signed_weight

# ---- from predictions to the margin -----------------------------------------------------------------------


def denoising_error(target: Tensor, prediction: Tensor) -> Tensor:
    """mean (target - prediction)² over all axes but the first, in at least float32: [B, ...] -> [B]."""
    return _mean((widen(target) - widen(prediction)).square())


def error_gap(target: Tensor, policy: Tensor, reference: Tensor) -> Tensor:
    """e(policy) - e(reference) per sample, without cancellation: [B, ...] -> [B].

    With a = policy, b = reference:  (τ-a)² - (τ-b)² = (b-a)(2τ-a-b). Early in training the two errors agree
    to several digits, and β/2·w, of the order of 10³, multiplies what is left. On 64x64x4 latents in float32
    with predictions 1e-3 apart, subtracting the errors as the official code does is wrong by 2e-7, this by
    5e-12. Exactly 0 when policy and reference agree bit for bit. Works in at least float32.
    """
    tau, a, b = widen(target), widen(policy), widen(reference)
    return _mean((b - a) * (2 * tau - a - b))


def implicit_margin(gap_winner: Tensor, gap_loser: Tensor, beta: float) -> Tensor:
    """h = -β/2 · (gap_w - gap_l), the reward difference that DPO reads off the policy (up to constants)."""
    return -0.5 * beta * (gap_winner - gap_loser)


def implicit_accuracy(margin: Tensor) -> Tensor:
    """1 where the policy sides with the winner, 1/2 at a tie, else 0. Officially, ties count as wrong."""
    return 0.5 * (torch.sign(margin) + 1)


# ---- from the margin to the loss --------------------------------------------------------------------------


def dpo(margin: Tensor) -> Tensor:
    """-log σ(h). Diffusion-DPO (Wallace et al. 2024), equation 14. log 2 at h = 0."""
    return softplus(-margin)


def smpo(margin: Tensor, p: Tensor, gamma: float = 10.0) -> Tensor:
    """-log σ(γ(2p-1)·h). SmPO-Diffusion: DPO on geometric mixtures of the two densities.

    p = 1/2 gives log 2 and no gradient. Order-free: swapping the images maps (h, p) to (-h, 1-p) and changes
    nothing. p = 1, γ = 1 is `dpo`; γ = 1 is `gdpo`. The official code applies the first pair's p to all.
    """
    return softplus(-signed_weight(p, gamma) * margin)


def gdpo(margin: Tensor, p: Tensor) -> Tensor:
    """-log σ((2p-1)·h). Geometric-averaged DPO (Furuta et al. 2024); SmPO with γ = 1."""
    return smpo(margin, p, gamma=1.0)


def cdpo(margin: Tensor, p: Tensor | float) -> Tensor:
    """-p log σ(h) - (1-p) log σ(-h). Conservative DPO (Mitchell 2023); p = 1-ε for a label flipped with ε.

    Unlike `smpo`, p = 1/2 isn't silent: it pulls the margin to 0.
    """
    return p * softplus(-margin) + (1 - p) * softplus(margin)


def robust_dpo(margin: Tensor, flip: float) -> Tensor:
    """[-(1-ε) log σ(h) + ε log σ(-h)]/(1-2ε). Robust DPO (Chowdhury et al. 2024).

    Unbiased for `dpo` when labels are flipped with probability ε = `flip`. Unbounded below.
    Raises ValueError unless 0 <= ε < 1/2.
    """
    if not 0 <= flip < 0.5:
        raise ValueError(f"the flip probability must be at least 0 and below 1/2; got {flip}.")
    return ((1 - flip) * softplus(-margin) - flip * softplus(margin)) / (1 - 2 * flip)


def ipo(margin: Tensor, beta: float) -> Tensor:
    """(h̃ - 1/(2β))² with h̃ = 2h/β = -(gap_w - gap_l). IPO (Azar et al. 2024) in the Hugging Face scaling.

    `beta` must be the β of the margin. Tiny by nature: of the order of 1/(4β²).
    """
    return (2 * margin / beta - 1 / (2 * beta)).square()


def hinge(margin: Tensor) -> Tensor:
    """max(0, 1 - βh̃) = max(0, 1 - 2h). SLiC's hinge in the Hugging Face scaling, hence the factor two."""
    return torch.relu(1 - 2 * margin)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)
