"""Learning rates as functions of the update's number: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["LearningRate"]


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up over `warmup` updates, then constant, linear or cosine decay to zero at `steps`.

    Update k (from 0) of the warm-up uses peak * (k + 1) / warmup, so the first update already moves. With
    `from_zero` it uses peak * k / warmup, as diffusers' `constant_with_warmup` does: the first update moves nothing.
    """

    peak: float
    steps: int
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    from_zero: bool = False

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + (not self.from_zero)) / self.warmup
        if self.schedule == "constant":
            return self.peak
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "linear":
            return self.peak * (1 - progress)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        for group in optimiser.param_groups:
            group["lr"] = self.at(step)
