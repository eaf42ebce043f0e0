"""How much the losses of one pair at several timesteps resemble each other: what sharing a walk costs in variance.

Let g be the gradient of one loss. The mean of N losses, m of each pair, has variance sigma^2 (1 + (m - 1) rho) / N with

    rho = E <g - mu, g' - mu> / E |g - mu|^2,        g, g' of one pair at two timesteps, mu = E g

the mean over all coordinates of the gradient. Nothing is projected: three sums of squares are enough, since
sum over a != b of <g_a, g_b> = |sum g|^2 - sum |g|^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smpo.engine.inversion_batches import parts
from smpo.engine.loop import Session
from smpo.engine.step import compute_loss, invert_batch, run_policy, run_reference
from smpo.maths.schedule import exact

__all__ = ["GradientCorrelation", "gain", "gradient_correlation", "gradients"]


@dataclass(frozen=True)
class GradientCorrelation:
    """`rho` with a bootstrap interval over pairs; `pairs` with `levels` timesteps each."""

    rho: float
    low: float
    high: float
    pairs: int
    levels: int
    signal: float
    """|mu|^2 / E |g|^2: how much of a gradient is common to all pairs."""


def gradients(session: Session, levels: int) -> Iterator[list[Tensor]]:
    """For each pair of the first update: its gradients at `levels` timesteps, one in each stratum, flat."""
    settings = replace(session.settings, timesteps=levels, strata=None)
    for batch in session.batches(0):
        noisy = invert_batch(
            batch,
            session.draws(batch.position),
            denoiser=session.denoiser,
            inversion=session.inversion,
            objective=session.objective,
            settings=settings,
        )
        # Rows run over levels, then pairs.
        found: list[list[Tensor]] = [[] for _ in range(len(batch))]
        for index, part in enumerate(parts(noisy, 1)):
            prepared = run_reference(part, session.denoiser, session.objective)
            outcome = compute_loss(prepared, run_policy(prepared, session.denoiser), session.objective)
            grads = torch.autograd.grad(outcome.loss.sum(), session.parameters, allow_unused=True)
            flat = [
                torch.zeros_like(p) if g is None else g
                for g, p in zip(grads, session.parameters, strict=True)
            ]
            found[index % len(batch)].append(torch.cat([one.flatten() for one in flat]))
        yield from found


def gradient_correlation(
    pairs: Iterator[list[Tensor]], *, seed: int = 0, done: Callable[[int], None] = lambda _: None
) -> GradientCorrelation:
    """Needs two pairs with two gradients each. Of gradients it keeps no more than one pair's and the sum of all."""
    cross, own, sums, levels = [], [], [], 0
    total: Tensor | None = None
    for count, grads in enumerate(pairs, 1):
        levels = len(grads)
        mine = torch.stack(grads).sum(0)
        squares = float(sum(exact(g).square().sum() for g in grads))
        whole = float(exact(mine).square().sum())
        own.append(squares / levels)
        cross.append((whole - squares) / (levels * (levels - 1)))
        sums.append(whole)
        total = mine if total is None else total + mine
        done(count)
    count = len(own)
    if total is None or count < 2 or levels < 2:
        raise ValueError("resemblance needs at least two pairs with two gradients each")
    between = (float(exact(total).square().sum()) - sum(sums)) / (count * (count - 1) * levels**2)
    a, b = torch.tensor(cross, dtype=torch.float64), torch.tensor(own, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (2000, count), generator=generator)
    spread = (a[drawn].mean(1) - between) / (b[drawn].mean(1) - between)
    low, high = spread.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    rho = float((a.mean() - between) / (b.mean() - between))
    return GradientCorrelation(rho, low, high, count, levels, max(0.0, between) / float(b.mean()))


def gain(rho: float, levels: int, cost: float, cost_of_one: float) -> float:
    """By how much `levels` timesteps a walk reach the same variance sooner: c(1) / (c(m) (1 + (m - 1) rho))."""
    return cost_of_one / (cost * (1 + (levels - 1) * rho))
