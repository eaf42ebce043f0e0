"""How far a policy has gone from its base: the exact density of what a deterministic sampler draws, and KL from it.

DDIM is a map from starts z to points x, a chain of moves `x' = a x + b eps(x, t)`, and a chain of maps has a density:

    log p(x) = log N(z) - sum over moves of log |det(a I + b d eps / dx)|

In the plane the determinants are of 2 x 2 matrices and each move is undone by Newton's method, so the base's density at
the policy's points is known as well as the policy's own:

    KL(policy || base) = E_policy[ log p_policy(x) - log p_base(x) ]

Nothing is approximated but the expectation, which is a mean over points with an interval, sharpened by what is known:
the mean of p_base / p_policy over the policy's points is one, so its error is subtracted (a control variate, whose
coefficient is fitted). The number of sampling steps is part of what is measured. Shapes: `N` points, latents
`[N, 2, 1, 1]`; float64 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smpo.errors import RunError
from smpo.maths.hops import grid
from smpo.maths.schedule import NoiseSchedule

__all__ = ["Divergence", "Noise", "Sampler", "divergence"]

Noise = Callable[[Tensor, int], Tensor]
"""A denoiser with its conditions bound: eps of `x` `[N, 2]` at one timestep, `[N, 2]`. Differentiable, row by row."""

ITERATIONS = 12
"""Newton steps to undo a move, at most; three or four are enough but between the modes."""
CLOSE = 1e-9


@dataclass(frozen=True)
class Sampler:
    """DDIM with `steps` steps from the standard normal to clean points (abar = 1), as the plane family samples."""

    schedule: NoiseSchedule
    steps: int

    def _moves(self) -> Iterator[tuple[int, float, float]]:
        """`(timestep, a, b)` of every move, noisiest first."""
        levels = [int(level) for level in grid(self.steps, self.schedule.T, 1)]
        table = self.schedule.alphas_cumprod.double().cpu()
        bars = [1.0, *(float(table[level]) for level in levels)]
        for k in range(len(levels), 0, -1):
            a = math.sqrt(bars[k - 1] / bars[k])
            yield levels[k - 1], a, math.sqrt(1 - bars[k - 1]) - a * math.sqrt(1 - bars[k])

    def draw(self, start: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """`(points [N, 2], their log-densities [N])` from starts `[N, 2]`."""
        x, log_p = start.double(), _log_normal(start.double())
        for t, a, b in self._moves():
            moved, jacobian = _step(x, t, a, b, noise)
            x, log_p = moved, log_p - _log_det(jacobian)
        return x, log_p

    def log_density(self, points: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """`(log-densities [N], starts [N, 2])` of points `[N, 2]` under this sampler. Raises `RunError` when a move
        can't be undone (the map isn't one to one there)."""
        x, volume = points.double(), torch.zeros(len(points), dtype=torch.float64)
        for t, a, b in reversed(list(self._moves())):
            target = x
            x = target / a
            for _ in range(ITERATIONS):
                moved, jacobian = _step(x, t, a, b, noise)
                away = moved - target
                if float(away.abs().max()) < CLOSE:
                    break
                x = x - torch.linalg.solve(jacobian, away)
            moved, jacobian = _step(x, t, a, b, noise)
            worst = float((moved - target).abs().max())
            if not worst < 1e-6:
                raise RunError(f"a sampling move at timestep {t} could not be undone (off by {worst:.2g})")
            volume = volume - _log_det(jacobian)
        return _log_normal(x) + volume, x


@dataclass(frozen=True)
class Divergence:
    """KL(policy || base) in nats: a mean over points, and its 95 % interval."""

    kl: float
    low: float
    high: float
    points: Tensor
    """`[N, 2]`, drawn from the policy on the way."""
    ratios: Tensor
    """`[N]` log p_policy - log p_base at each."""


def divergence(policy: Noise, base: Noise, start: Tensor, sampler: Sampler) -> Divergence:
    """From the points that the policy draws from `start` `[N, 2]`."""
    with torch.no_grad():
        points, ours = sampler.draw(start, policy)
        theirs, _ = sampler.log_density(points, base)
    ratios = ours - theirs
    inverse = (-ratios).exp() - 1  # mean zero
    spread = inverse - inverse.mean()
    against = float((ratios - ratios.mean()) @ spread / (spread @ spread)) if bool(spread.any()) else 0.0
    sharpened = ratios - against * inverse
    mean = float(sharpened.mean())
    half = 1.96 * float(sharpened.std()) / math.sqrt(len(ratios))
    return Divergence(mean, mean - half, mean + half, points, ratios)


def _step(x: Tensor, t: int, a: float, b: float, noise: Noise) -> tuple[Tensor, Tensor]:
    """`(a x + b eps(x) [N, 2], its Jacobians [N, 2, 2])`, by two backward passes: rows don't touch each other."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        eps = noise(leaf, t)
        rows = [torch.autograd.grad(eps[:, i].sum(), leaf, retain_graph=i == 0)[0] for i in range(eps.shape[1])]
    jacobian = a * torch.eye(2, dtype=x.dtype) + b * torch.stack(rows, dim=1)
    return a * x + b * eps.detach(), jacobian


def _log_det(jacobian: Tensor) -> Tensor:
    (p, q), (r, s) = (row.unbind(-1) for row in jacobian.unbind(1))
    return (p * s - q * r).abs().log()


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(dim=1) - float(np.log(2 * np.pi))
