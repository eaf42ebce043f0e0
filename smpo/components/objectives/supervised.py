"""Plain denoising: no comparison, no reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from smpo.components.objectives.common import inverts
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Sampling, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ConditionalFineTuning", "SupervisedFineTuning"]


@register
class SupervisedFineTuning(Objective):
    """SFT: plain denoising on the image that p prefers; ties use both. No reference model.

    loss = e_w where p > 1/2,  e_l where p < 1/2
    """

    use: Literal["sft"] = "sft"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        winner, loser = predicted.errors()
        side = 0.5 * (1 + (2 * p - 1).sign())
        return ObjectiveOut(side * winner + (1 - side) * loser, (loser - winner).detach())

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield "`sft` on inverted noise learns what the network said already: `inversion: none` is what SFT means"


@register
class ConditionalFineTuning(Objective):
    """CSFT: denoising on both images, whose prompts say which one is good. Sampled with the good prefix.

        loss = (e_w + e_l) / 2,    prompts "good image, ..." and "bad image, ..."; ties carry none

    A baseline of Diffusion-KTO (Li et al. 2024, arXiv:2404.04465). Dropped prompts lose their prefix too.
    """

    use: Literal["csft"] = "csft"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False

    good: str = "good image, "
    """Before the prompts of preferred images, and of what is sampled afterwards."""
    bad: str = "bad image, "
    """Before the prompts of the others."""

    def sampling(self) -> Sampling:
        return Sampling(prefixes=(self.good, self.bad))

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        winner, loser = predicted.errors()
        return ObjectiveOut((winner + loser) / 2, (loser - winner).detach())

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield "`csft` on inverted noise learns what the network said already: `inversion: none` is what it means"
