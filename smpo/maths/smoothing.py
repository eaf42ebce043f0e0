"""From scores or votes to p, the probability that an image called the winner really is preferred.

SmPO assumes that the densities of preferred and dispreferred images are geometric mixtures with exponents α
and γ-α. With α = γp, the DPO margin is multiplied by 2α-γ = γ(2p-1): certain pairs count, doubtful ones don't
(method reference 1.1). All functions are elementwise: [B] in, [B] out.
"""

import torch
from torch import Tensor


def min_max(scores: Tensor, low: float, high: float, *, clamp: bool = False) -> Tensor:
    """r' = (r - low)/(high - low), with `low` and `high` taken over the training set.

    `clamp` keeps new scores inside [0, 1]; the official code doesn't, so p can leave [0.269, 0.731].
    Raises ValueError if high <= low.
    """
    if not high > low:
        raise ValueError(f"the score range must be increasing; got low={low}, high={high}.")
    r = (scores - low) / (high - low)
    return r.clamp(0.0, 1.0) if clamp else r


def softmax_preference(winner: Tensor, loser: Tensor, *, temperature: float = 1.0) -> Tensor:
    """p = exp(r_w/θ)/(exp(r_w/θ) + exp(r_l/θ)) = sigmoid((r_w - r_l)/θ), a Bradley-Terry model.

    SmPO uses min-max-normalised scores and θ = 1. Swapping the two gives 1 - p; a tie gives 1/2.
    Raises ValueError if the temperature isn't positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")
    return torch.sigmoid((winner - loser) / temperature)


def label_smoothing(p: Tensor, eps: float) -> Tensor:
    """p' = (1-ε)p + ε(1-p): with probability ε the label was flipped. Hard labels become 1-ε and ε.

    Raises ValueError unless 0 <= ε <= 1/2.
    """
    if not 0 <= eps <= 0.5:
        raise ValueError(f"the flip probability must be between 0 and 1/2; got {eps}.")
    return eps + (1 - 2 * eps) * p


def signed_weight(p: Tensor, gamma: float) -> Tensor:
    """w = γ(2p-1) = 2α-γ, in [-γ, γ]; 0 at p = 1/2.

    Signed, so that pairs need no winner-first order: swapping images flips both w and the margin. With
    p = sigmoid(d) it equals γ·tanh(d/2). The official code orders winner first, and uses the weight of a
    micro-batch's first pair for all of them.
    """
    return gamma * (2 * p - 1)


def votes(wins: Tensor, losses: Tensor, *, prior: float = 0.0) -> Tensor:
    """p = (wins + prior)/(wins + losses + 2·prior), for data sets with vote counts such as HPDv3.

    `prior` adds that many imaginary votes to each side (1 is Laplace's rule). No votes at all give 1/2.
    Raises ValueError if the prior is negative.
    """
    if prior < 0:
        raise ValueError(f"prior must not be negative; got {prior}.")
    dtype = torch.promote_types(torch.promote_types(wins.dtype, losses.dtype), torch.float32)
    w, n = wins.to(dtype) + prior, (wins + losses).to(dtype) + 2 * prior
    return torch.where(n > 0, w / n.clamp(min=torch.finfo(dtype).tiny), torch.full_like(w, 0.5))
