"""Objectives: from four denoising errors to one loss per pair. Formulas live in `smpo.maths.losses`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.kinds import Objective, ObjectiveOut, Predicted
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ConservativeDPO", "DiffusionDPO", "SmPO", "SupervisedFineTuning"]


@register
class SmPO(Objective):
    """SmPO: the DPO margin, weighted by how decisive the smoothed preference is.

        loss = -log sigmoid( gamma (2p - 1) h ),    h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ]

    p = 1/2 contributes nothing; gamma = 1 and p = 1 is Diffusion-DPO; in general it is GDPO with beta' = gamma beta.
    Lu et al. 2025 (arXiv:2506.02698), with the scaling of the official code (element means, beta/2). That code uses
    the first pair's weight for the whole batch; here every pair has its own.
    """

    use: Literal["smpo"] = "smpo"
    version: ClassVar[int] = 1
    at_reference: ClassVar[float | None] = math.log(2)

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer. The paper: 2000 for SD 1.5, 5000 for SDXL."""
    gamma: float = Field(10.0, gt=0)
    """Scale of the preference weight. The paper: 10."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import implicit_margin, smpo
        from smpo.maths.smoothing import signed_weight

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(
            smpo(margin, p, self.gamma), margin, {"weight": signed_weight(p, self.gamma).abs()}
        )


@register
class DiffusionDPO(Objective):
    """Diffusion-DPO: every pair counts the same, whichever side p is on.

        loss = -log sigmoid( sign(2p - 1) h ),    h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ]

    Ties (p = 1/2) give no gradient. Wallace et al. 2024 (arXiv:2311.12908), scaling of its official code.
    """

    use: Literal["dpo"] = "dpo"
    version: ClassVar[int] = 1
    at_reference: ClassVar[float | None] = math.log(2)

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer. Its paper: 2000 for SD 1.5, 5000 for SDXL."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import dpo, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(dpo((2 * p - 1).sign() * margin), margin)


@register
class ConservativeDPO(Objective):
    """cDPO: cross-entropy against the soft label p. Unlike SmPO, p = 1/2 pulls the margin back to zero.

        loss = -p log sigmoid(h) - (1 - p) log sigmoid(-h)

    Mitchell 2023; method.md 3.9.
    """

    use: Literal["cdpo"] = "cdpo"
    version: ClassVar[int] = 1
    at_reference: ClassVar[float | None] = math.log(2)

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import cdpo, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(cdpo(margin, p), margin)


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
