"""One batch from clean latents to one loss per pair: the method, in the order of the paper.

latents -> timestep -> inversion -> reference and policy predictions -> objective(smoothed preference).

What needs no gradients (`noise`) may be done for many micro-batches at once, see `smpo.engine.inversion_batches`.
Nothing here reads a number from the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from smpo.engine.forward_batches import batched_predictors
from smpo.engine.noise_and_timesteps import (
    LevelDraws,
    StepConfig,
    latents_of,
    repeat_each_level,
    repeat_levels,
    timesteps_of,
)
from smpo.kinds import Conditioning, Denoiser, Draws, Objective, PairBatch, Predicted, Predictors, ReferenceCache
from smpo.kinds.live import Invert
from smpo.maths.schedule import carried

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "InvertedBatch",
    "ReferenceBatch",
    "StepOutput",
    "compute_loss",
    "invert_batch",
    "run_policy",
    "run_reference",
]


@dataclass(frozen=True)
class InvertedBatch:
    """Pairs with their noise, before any prediction. B counts a pair once for each of its losses.

    `x0`, `x_t`, `noise` `[2 * levels * B, C, H, W]`, `t` and conditioning likewise: sides, then the levels that one
    loss looks at, then pairs. `passes`: network passes per row that the inversion took. `key` names these very latents
    in a cache of inversions.
    """

    batch: PairBatch
    x0: Tensor
    x_t: Tensor
    noise: Tensor
    t: Tensor
    conditioning: Conditioning
    levels: int
    passes: float
    key: str = ""


@dataclass(frozen=True)
class ReferenceBatch:
    """A micro-batch with its noise and the reference's prediction: all that needs no gradients.

    `predicted` lacks only the policy's prediction. `x_t`, `conditioning`: the networks' inputs, one row for each side,
    level and pair. `passes`: network passes per row that the inversion took. `reference_ran`: False for a cached
    prediction.
    """

    batch: PairBatch
    x_t: Tensor
    conditioning: Conditioning
    predicted: Predicted
    passes: float
    reference_ran: bool = True


@dataclass(frozen=True)
class StepOutput:
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
    reference_ran: bool = True
    """False for a cached prediction."""


def invert_batch(
    batch: PairBatch,
    draws: Draws,
    *,
    denoiser: Denoiser,
    inversion: Invert,
    objective: Objective,
    settings: StepConfig,
) -> InvertedBatch:
    """Latents, timesteps, and the inversion's noise. No gradients."""
    levels, together = objective.levels_per_pair(), objective.levels_per_pair() * settings.timesteps
    x0 = repeat_levels(latents_of(batch, draws, settings), together)  # [2 * together * B, C, H, W]
    t = timesteps_of(batch, draws, settings, together)
    cond, empty = batch.conditioning, batch.unconditional
    if together > 1:
        rows = carried(repeat_levels(torch.arange(2 * len(batch)), together), x0.device)
        cond, empty = cond.take(rows), None if empty is None else empty.take(rows)
    noised = inversion(
        x0,
        t,
        Predictors(
            **batched_predictors(denoiser, cond, empty, settings.passes),
            levels=together,
            pictures=repeat_each_level(batch.pictures, together),
        ),
        denoiser.schedule,
        LevelDraws(draws, together) if together > 1 else draws,
    )
    return InvertedBatch(
        batch.repeated(settings.timesteps),
        x0,
        noised.x_t,
        noised.noise,
        carried(t, x0.device),
        cond,
        levels,
        noised.passes / len(x0),
        noised.key,
    )


def run_reference(
    noisy: InvertedBatch, denoiser: Denoiser, objective: Objective, cache: ReferenceCache | None = None
) -> ReferenceBatch:
    """The reference's prediction, from `cache` where it has the batch's key. Its batch is the policy's: rounding
    cancels in their difference."""
    schedule, t = denoiser.schedule, noisy.t
    reference, ran = noisy.noise, False  # a placeholder in the right shape
    if objective.needs_reference:
        output = cache.get(noisy.key) if cache is not None and noisy.key else None
        if output is None:
            ran = True
            with torch.no_grad():
                output = denoiser.predict(noisy.x_t, t, noisy.conditioning, reference=True)
            if cache is not None and noisy.key:
                cache.put(noisy.key, output)
        with torch.no_grad():
            reference = schedule.compared(output.to(noisy.x_t.device), noisy.x_t, t)
    seen = Predicted(
        target=schedule.compared_target(noisy.x0, noisy.noise, t),
        policy=reference,
        reference=reference,
        t=t,
        abar=schedule.alphas_cumprod[carried(t, schedule.alphas_cumprod.device)].to(t.device),
        levels=noisy.levels,
        desirable=noisy.batch.desirable,
    )
    return ReferenceBatch(noisy.batch, noisy.x_t, noisy.conditioning, seen, noisy.passes, ran)


def run_policy(prepared: ReferenceBatch, denoiser: Denoiser) -> Predicted:
    """The policy's prediction, with gradients if the caller has them on."""
    seen = prepared.predicted
    output = denoiser.predict(prepared.x_t, seen.t, prepared.conditioning)
    return replace(seen, policy=denoiser.schedule.compared(output, prepared.x_t, seen.t))


def compute_loss(
    prepared: ReferenceBatch,
    predicted: Predicted,
    objective: Objective,
    means: Mapping[str, Tensor] | None = None,
) -> StepOutput:
    """The objective's loss, with metrics."""
    batch = prepared.batch
    out = objective(replace(predicted, means=means) if means else predicted, batch.p)
    with torch.no_grad():
        shape = (2, predicted.levels, len(batch))
        power = predicted.target.float().square().flatten(1).mean(1).reshape(shape).mean((0, 1))
        t = predicted.t.reshape(shape).float().mean((0, 1))
        watched = _watched(predicted, batch, objective)
    return StepOutput(
        loss=out.loss,
        margin=out.margin.detach(),
        t=t,
        target_power=power,
        p=batch.p,
        passes=prepared.passes,
        reference_ran=prepared.reference_ran,
        metrics={**watched, **{name: value.detach() for name, value in out.metrics.items()}},
    )


def _watched(predicted: Predicted, batch: PairBatch, objective: Objective) -> dict[str, Tensor]:
    """`error/*`: the policy's errors on the image that p prefers and on the other; `gap/*`: minus the reference's."""

    def sides(values: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        first, second = (side.reshape(predicted.levels, len(batch)).mean(0) for side in values)
        return torch.where(batch.p >= 0.5, first, second), torch.where(batch.p >= 0.5, second, first)

    error = sides(predicted.errors())
    if batch.desirable is not None:  # two images that happen to lie side by side
        return {"error": (error[0] + error[1]) / 2}
    found = {"error/winner": error[0], "error/loser": error[1]}
    if objective.needs_reference:
        found["gap/winner"], found["gap/loser"] = sides(predicted.gaps())
    return found
