"""What may be done to an inverted noise before it is used: more noise, fresh noise, or one noise for both images.

None of this is in the SmPO paper; `inpo_noise` is in DDIM-InPO's code. All tensors `[N, ...]`, `t` `[N]`, winners in
the first half where pairs matter.
"""

import torch
from torch import Tensor

from smpo.maths.schedule import NoiseSchedule, widen

__all__ = ["blend", "common", "guided", "inpo_noise"]


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """u + s (c - u): classifier-free guidance (Ho and Salimans 2022), for noises and velocities alike."""
    return unconditional + scale * (conditional - unconditional)


def blend(noise: Tensor, fresh: Tensor, share: float) -> Tensor:
    """√(1-f) τ + √f ε: keeps the variance if τ has variance one and ε doesn't know it."""
    kept: float = (1 - share) ** 0.5
    added: float = share**0.5
    return kept * noise + added * fresh


def common(noise: Tensor) -> Tensor:
    """The mean of a pair's two noises, for both, stretched to the mean power of the two.

    The plain mean of noises with correlation ρ has only (1 + ρ)/2 of their variance, and the network would see less
    noise than the timestep promises. A mean of exactly zero stays zero.
    """
    winner, loser = widen(noise).chunk(2)
    mean = (winner + loser) / 2
    power = (_power(winner) + _power(loser)) / 2
    stretched = mean * (power / _power(mean).clamp(min=torch.finfo(mean.dtype).tiny)).sqrt()
    return torch.cat([stretched, stretched]).to(noise.dtype)


def inpo_noise(x_t: Tensor, fresh: Tensor, t: Tensor, schedule: NoiseSchedule, *, delta: int, scale: float) -> Tensor:
    """x + η √var ε with DDIM's variance of the step t + Δ -> t, capped at the end of the schedule.

        var = (1 - ᾱ_t) / (1 - ᾱ_{t+Δ}) · (1 - ᾱ_{t+Δ} / ᾱ_t)          Song et al. 2021, equation 16

    DDIM-InPO adds it after inverting, with η = 0.1.
    """
    here = schedule.abar_exact(t, x_t)
    above = schedule.abar_exact((t + delta).clamp(max=schedule.T - 1), x_t)
    variance = (1 - here) / (1 - above) * (1 - above / here)
    return x_t + scale * variance.clamp(min=0).sqrt().to(x_t.dtype) * fresh.to(x_t.dtype)


def _power(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1).reshape(-1, *(1,) * (x.ndim - 1))
