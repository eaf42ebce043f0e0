"""Objectives that believe that some labels are wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import Logistic
from smpo.kinds import Inversion, ObjectiveOut, Predicted, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ConservativeDPO", "RobustDPO"]


@register
class ConservativeDPO(Logistic):
    """cDPO: cross-entropy against the soft label p. Unlike SmPO, p = 1/2 pulls the margin back to zero.

        loss = -p log sigmoid(h) - (1 - p) log sigmoid(-h)

    Mitchell 2023; method.md 3.9.
    """

    use: Literal["cdpo"] = "cdpo"
    version: ClassVar[int] = 1
    label_use: ClassVar[Literal["size", "side"]] = "size"

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import cdpo, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(cdpo(margin, p), margin)

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if smoothing.is_hard:
            yield "`cdpo` with certain labels is plain Diffusion-DPO: use `smoothing: label`, or another that doubts"


@register
class RobustDPO(Logistic):
    """Robust DPO: unbiased for DPO when a known share of the labels is flipped.

        loss = [ -(1 - f) log sigmoid(s h) + f log sigmoid(-s h) ] / (1 - 2f),    s = sign(2p - 1)

    Chowdhury et al. 2024 (arXiv:2403.00409). f = 0 is DPO. Unbounded below: a pair that is surely won goes on paying.
    """

    use: Literal["robust-dpo"] = "robust-dpo"
    version: ClassVar[int] = 1

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer."""
    flip: float = Field(0.1, ge=0, lt=0.5)
    """Share of labels that are believed to be flipped."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import implicit_margin, robust_dpo

        margin = implicit_margin(*predicted.gaps(), self.beta)
        side = (2 * p - 1).sign()
        # A tie has no label that could have been flipped: it stays at ln 2, without a gradient.
        return ObjectiveOut(robust_dpo(side * margin, self.flip), margin)
