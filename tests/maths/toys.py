"""Small stand-ins for a network: linear, so that golden values can be had in closed form."""

import torch
from torch import Tensor

from smpo.maths.schedule import NoiseSchedule


def policy(x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
    return 0.3 * x + 0.05 * t.reshape(-1, *(1,) * (x.ndim - 1)).to(x.dtype) / 1000


def reference(x: Tensor, t: Tensor) -> Tensor:
    return 0.28 * x + 0.04 * t.reshape(-1, 1).to(x.dtype) / 1000


def velocity_of(eps: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The v-prediction that says the same as ε at x: v = (ε - √(1-ᾱ) x)/√ᾱ."""
    signal, noise = NoiseSchedule.scaled_linear().coefficients(t, x)
    return (eps - noise * x) / signal


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
