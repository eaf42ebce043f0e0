"""Objectives for single images with a label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import inverts
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Sampling, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DiffusionKTO"]


@register
class DiffusionKTO(Objective):
    """Diffusion-KTO: single images, each desirable or not; pairs are only where the labels come from.

        g = e_ref - e,   u = +beta (g - z0) if desirable, -beta (g - z0) if not,   loss = lambda_y (1 - U(u))

    z0 = max(0, mean of g over the whole update), without gradient. Utilities U: `kto` sigmoid(u), `loss-averse`
    log sigmoid(u), `risk-seeking` -log sigmoid(-u). An image is desirable if it was preferred at least once. A batch
    of B counts 2B images, drawn one by one, each with its own timestep.

    Li et al. 2024 (arXiv:2404.04465), scaling of its official code: no 1/2 with beta. That code takes z0 from each
    micro-batch of all devices; here it doesn't depend on how an update is cut.
    """

    use: Literal["kto"] = "kto"
    version: ClassVar[int] = 1
    needs_means: ClassVar[bool] = True

    beta: float = Field(1000.0, gt=0)
    """Pull towards the reference. The official script: 1000; the paper: 5000."""
    utility: Literal["kto", "loss-averse", "risk-seeking"] = "kto"
    """How gains and losses are felt."""
    positive_ratio: float = Field(0.8, gt=0, lt=1)
    """Share of desirable images among those that are shown."""
    weight_desirable: float = Field(1.0, ge=0)
    """lambda of desirable images."""
    weight_undesirable: float = Field(1.0, ge=0)
    """lambda of the others."""

    @property
    def at_reference(self) -> float | None:
        if self.weight_desirable != self.weight_undesirable:
            return None
        felt = {"kto": 0.5, "loss-averse": 1 + math.log(2), "risk-seeking": 1 - math.log(2)}[self.utility]
        return self.weight_desirable * felt

    def sampling(self) -> Sampling:
        return Sampling(desirable=self.positive_ratio)

    def batch_means(self, predicted: Predicted, p: Tensor) -> Mapping[str, Tensor]:
        first, second = predicted.gaps()
        return {"gain": -(first + second) / 2}

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        import torch

        from smpo.maths.baselines import kto, kto_baseline

        gap = torch.cat(predicted.gaps())  # [2B]
        wanted = torch.cat([p > 0.5, p < 0.5]) if predicted.desirable is None else predicted.desirable
        mean = predicted.means.get("gain")
        baseline = kto_baseline(gap) if mean is None else mean.clamp(min=0)
        loss = kto(
            gap,
            wanted,
            self.beta,
            baseline=baseline,
            utility=_UTILITIES[self.utility],
            weight_desirable=self.weight_desirable,
            weight_undesirable=self.weight_undesirable,
        )
        felt = self.beta * torch.where(wanted, -gap - baseline, gap + baseline)
        half = len(p)
        return ObjectiveOut(
            (loss[:half] + loss[half:]) / 2,
            (felt[:half] + felt[half:]) / 2,
            {"z0": baseline.expand(half), "desirable": wanted.reshape(2, half).float().mean(0)},
        )

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield "`kto` was never meant for inverted noise: `inversion: {use: none, shared: false}` is its setting"
        elif getattr(inversion, "shared", False):
            yield (
                "`kto` shows unrelated images side by side, and they share their noise here: "
                "`--set inversion.shared=false`"
            )


_UTILITIES: dict[str, Literal["kto", "loss_averse", "risk_seeking"]] = {
    "kto": "kto",
    "loss-averse": "loss_averse",
    "risk-seeking": "risk_seeking",
}
