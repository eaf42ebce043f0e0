"""An objective."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from smpo.api import Field, Objective, ObjectiveOut, Predicted, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class FocalDPO(Objective):
    """DPO that loses interest in pairs it has learnt, as the focal loss does in classification.

        loss = p f(h) + (1 - p) f(-h),    f(h) = -(1 - sigmoid(h))^focus log sigmoid(h)

    h is the margin of Diffusion-DPO; focus = 0 is cDPO. After Lin et al. 2017 (arXiv:1708.02002).
    """

    use: Literal["focal-dpo"] = "focal-dpo"
    version: ClassVar[int] = 1
    label_use: ClassVar[Literal["size", "side"]] = "size"

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer."""
    focus: float = Field(2.0, ge=0)
    """How quickly interest fades; 0 is plain cDPO."""

    @property
    def at_reference(self) -> float | None:
        return 0.5**self.focus * math.log(2)

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from torch.nn.functional import logsigmoid

        winner, loser = predicted.gaps()
        h = -0.5 * self.beta * (winner - loser)

        def fading(margin: Tensor) -> Tensor:
            return -((-margin).sigmoid() ** self.focus) * logsigmoid(margin)

        return ObjectiveOut(p * fading(h) + (1 - p) * fading(-h), h.detach())
