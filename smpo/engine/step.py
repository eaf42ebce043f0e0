"""One micro-batch from clean latents to one loss per pair: the method, in the order in which the paper tells it.

latents -> timestep -> inversion -> policy and reference predictions -> objective(smoothed preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from smpo.kinds import (
    Conditioning,
    Denoiser,
    Draws,
    Inversion,
    Objective,
    PairBatch,
    Predict,
    Predicted,
    Predictors,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PairOutcome", "Settings", "pair_step"]


@dataclass(frozen=True)
class Settings:
    """The part of the spec that a single step needs."""

    seed: int
    t_min: int
    t_max: int
    """Largest timestep, inclusive."""
    posterior: bool
    """Sample latents from the VAE's posterior (True) or take its mean."""


@dataclass(frozen=True)
class PairOutcome:
    """What a micro-batch of B pairs gave, one row a pair. Only `loss` carries gradients.

    `t` `[B]`; `target_power` `[B]`: mean of tau squared over both images (about 1 for healthy image inversions);
    `margin` `[B]`; `p` `[B]`; `passes`: network passes per image that the inversion took, averaged over the batch.
    """

    loss: Tensor
    margin: Tensor
    t: Tensor
    target_power: Tensor
    p: Tensor
    passes: float
    metrics: dict[str, Tensor]


def pair_step(
    batch: PairBatch,
    draws: Draws,
    *,
    denoiser: Denoiser,
    inversion: Inversion,
    objective: Objective,
    settings: Settings,
) -> PairOutcome:
    """Method 1.6, for any inversion and objective. Winners come first in every `[2B, ...]` tensor."""
    schedule, cond = denoiser.schedule, batch.conditioning
    x0 = _latents(batch, draws, settings)  # [2B, C, H, W]
    t = timesteps(draws.uniform("timestep"), settings).to(x0.device)  # [B], one for both images of a pair
    t_both = t.repeat(2)

    noised = inversion(x0, t_both, _predictors(denoiser, cond), schedule, draws)

    output = denoiser.predict(noised.x_t, t_both, cond)
    policy = schedule.epsilon(output, noised.x_t, t_both)
    reference = policy.detach()
    if objective.needs_reference:
        with torch.no_grad():
            output = denoiser.predict(noised.x_t, t_both, cond, reference=True)
            reference = schedule.epsilon(output, noised.x_t, t_both)

    predicted = Predicted(target=noised.noise, policy=policy, reference=reference, t=t_both)
    out = objective(predicted, batch.p)
    with torch.no_grad():
        winner, loser = predicted.errors()
        power = noised.noise.float().square().flatten(1).mean(1)
    return PairOutcome(
        loss=out.loss,
        margin=out.margin.detach(),
        t=t,
        target_power=(power[: len(batch)] + power[len(batch) :]) / 2,
        p=batch.p,
        passes=noised.passes / len(x0),
        metrics={
            "error/winner": winner,
            "error/loser": loser,
            **{name: value.detach() for name, value in out.metrics.items()},
        },
    )


def timesteps(uniform: Tensor, settings: Settings) -> Tensor:
    """`[B]` uniform numbers in [0, 1) -> integer timesteps in t_min..t_max, both included."""
    span = settings.t_max - settings.t_min + 1
    return (settings.t_min + (uniform * span).floor()).clamp(max=settings.t_max).long()


def _latents(batch: PairBatch, draws: Draws, settings: Settings) -> Tensor:
    """A draw from the VAE's posterior, or its mean; each image has its own noise."""
    if not settings.posterior:
        return batch.mean
    shape = batch.mean.shape[1:]
    noise = torch.cat([draws.normal("posterior/winner", shape), draws.normal("posterior/loser", shape)])
    return batch.mean + batch.std * noise.to(batch.mean)


def _predictors(denoiser: Denoiser, cond: Conditioning) -> Predictors:
    """Policy and reference without gradients, on any rows of the batch."""

    def follow(reference: bool) -> Predict:
        def predict(x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor:
            with torch.no_grad():
                return denoiser.predict(x, t, cond.take(rows), reference=reference)

        return predict

    return Predictors(policy=follow(False), reference=follow(True))
