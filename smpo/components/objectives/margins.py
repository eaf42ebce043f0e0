"""Objectives that see a pair through one number, the implicit margin h. All share the scaling of the official codes:

h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ],    e = mean over elements of (target - prediction)^2
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import Logistic
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IPO", "ConservativeDPO", "DiffusionDPO", "GeometricDPO", "Hinge", "RobustDPO", "SmPO"]


@register
class SmPO(Logistic):
    """SmPO: the DPO margin, weighted by how decisive the smoothed preference is.

        loss = -log sigmoid( gamma (2p - 1) h ),    h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ]

    p = 1/2 contributes nothing; gamma = 1 and p = 1 is Diffusion-DPO; in general it is GDPO with beta' = gamma beta.
    Lu et al. 2025 (arXiv:2506.02698), with the scaling of the official code (element means, beta/2). That code uses
    the first pair's weight for the whole batch; here every pair has its own.
    """

    use: Literal["smpo"] = "smpo"
    version: ClassVar[int] = 1
    label_use: ClassVar[Literal["size", "side"]] = "size"

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer. The paper: 2000 for SD 1.5, 5000 for SDXL."""
    gamma: float = Field(10.0, gt=0)
    """Scale of the preference weight. The paper: 10."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import implicit_margin, smpo
        from smpo.maths.smoothing import signed_weight

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(smpo(margin, p, self.gamma), margin, {"weight": signed_weight(p, self.gamma).abs()})

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if smoothing.is_hard and self.gamma != 1:
            yield (
                f"`smpo` with certain labels is Diffusion-DPO with beta {self.gamma * self.beta:g}: choose a smoothing "
                "that doubts, or `objective.gamma: 1`"
            )


@register
class DiffusionDPO(Logistic):
    """Diffusion-DPO: every pair counts the same, whichever side p is on.

        loss = -log sigmoid( sign(2p - 1) h ),    h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ]

    Ties (p = 1/2) give no gradient. Wallace et al. 2024 (arXiv:2311.12908), scaling of its official code. With
    `inversion: ddim` it is DDIM-InPO (Lu et al. 2025, arXiv:2503.18454).
    """

    use: Literal["dpo"] = "dpo"
    version: ClassVar[int] = 1

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer. Its paper: 2000 for SD 1.5, 5000 for SDXL."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import dpo, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(dpo((2 * p - 1).sign() * margin), margin)


@register
class GeometricDPO(Logistic):
    """GDPO: DPO on weighted geometric means of the two likelihoods; SmPO with gamma = 1.

        loss = -log sigmoid( (2p - 1) h ),    h = -beta/2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ]

    Furuta et al. 2024 (arXiv:2409.06691).
    """

    use: Literal["gdpo"] = "gdpo"
    version: ClassVar[int] = 1
    label_use: ClassVar[Literal["size", "side"]] = "size"

    beta: float = Field(2000.0, gt=0)
    """Pull towards the reference; larger stays closer."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import gdpo, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(gdpo(margin, p), margin)

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if smoothing.is_hard:
            yield "`gdpo` with certain labels is plain Diffusion-DPO: choose a smoothing that doubts"


@register
class IPO(Objective):
    """IPO: the margin is drawn towards a finite goal, so certain labels can't push it to infinity.

        loss = ( s m - 1 / (2 beta) )^2,    m = -[ (e_w - e_w_ref) - (e_l - e_l_ref) ],  s = sign(2p - 1)

    Azar et al. 2023 (arXiv:2310.12036), in the scaling of Hugging Face's Diffusion-DPO script. Ties give no gradient.
    Losses are tiny, of the order of 1 / (4 beta^2): raise `train.lr` or choose an optimiser that normalises.
    """

    use: Literal["ipo"] = "ipo"
    version: ClassVar[int] = 1

    beta: float = Field(2000.0, gt=0)
    """The goal of the margin is 1 / (2 beta)."""

    @property
    def at_reference(self) -> float | None:
        return 1 / (4 * self.beta**2)

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import implicit_margin, ipo

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(ipo((2 * p - 1).sign() * margin, self.beta), margin)


@register
class Hinge(Objective):
    """Hinge: pairs that are won by a clear margin teach nothing more.

        loss = max(0, 1 - s beta m),    m = -[ (e_w - e_w_ref) - (e_l - e_l_ref) ],  s = sign(2p - 1)

    SLiC's loss (Zhao et al. 2023, arXiv:2305.10425) on the diffusion margin, in the scaling of Hugging Face's script.
    Ties give no gradient.
    """

    use: Literal["hinge"] = "hinge"
    version: ClassVar[int] = 1

    beta: float = Field(2000.0, gt=0)
    """Margins above 1 / beta are enough."""

    @property
    def at_reference(self) -> float | None:
        return 1.0

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.losses import hinge, implicit_margin

        margin = implicit_margin(*predicted.gaps(), self.beta)
        return ObjectiveOut(hinge((2 * p - 1).sign() * margin), margin)


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
