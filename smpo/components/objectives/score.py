"""Objectives that compare predictions themselves with the reference's, not only their errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import Logistic, inverts, of_the_preferred
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DSPO", "InversionDPO"]


@register
class DSPO(Objective):
    """DSPO: denoising on the winner, with a target that the human preference has moved away from the reference.

        loss = mean( (eps_w - target) - beta (1 - sigmoid(h)) (eps_w - eps_w_ref) )^2

    Zhu et al. 2025 (ICLR), the SD 1.5 branch of its released code, whose gradient flows through h too; the SDXL branch
    is another, ad hoc rule and isn't offered. h is the DPO margin with the same beta. Ties are read both ways.

    At the published 0.001 the target moves by at most a thousandth of the gap between policy and reference, so the loss
    is SFT's to three digits.
    """

    use: Literal["dspo"] = "dspo"
    version: ClassVar[int] = 1

    beta: float = Field(0.001, gt=0)
    """Strength of the preference in the target. Its scripts: 0.001 to 0.05."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        def read(pair: Predicted) -> tuple[Tensor, Tensor]:
            from smpo.maths.baselines import dspo
            from smpo.maths.losses import implicit_margin

            margin = implicit_margin(*pair.gaps(), self.beta)
            target, policy, reference = (tensor.chunk(2)[0] for tensor in (pair.target, pair.policy, pair.reference))
            return dspo(target, policy, reference, margin, self.beta), margin

        loss, _ = of_the_preferred(predicted, p, read)
        winner, loser = predicted.gaps()
        return ObjectiveOut(loss, -0.5 * self.beta * (winner - loser))

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield "`dspo` is denoising on winners with a moved target: inverted noise takes its signal away"


@register
class InversionDPO(Logistic):
    """Inversion-DPO: how far the policy has left the reference on the winner's and on the loser's own path.

        loss = -log sigmoid( s beta/2 mean_k omega_k (d_w - d_l) ),   d = mean (eps - eps_ref)^2,  omega = 1 / (2 abar)

    Li et al. 2025 (arXiv:2507.11554), from its code, at `levels` timesteps of each pair, one in each stratum of the
    range (the code takes every level of one path). Meant for `inversion: {use: ddim, by: reference, guidance: 2}`. At
    the start both distances are zero and so is the gradient: rounding and weight decay are what gets it going.
    """

    use: Literal["inversion-dpo"] = "inversion-dpo"
    version: ClassVar[int] = 1

    beta: float = Field(2000.0, gt=0)
    """Strength of the comparison."""
    levels: int = Field(8, ge=1, le=1000)
    """Timesteps a pair, all in one loss: memory and time grow with it. The code: 40 or 80."""

    def levels_per_pair(self) -> int:
        return self.levels

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        from smpo.maths.baselines import inversion_dpo
        from smpo.maths.losses import denoising_error

        assert predicted.abar is not None, "the engine says which levels these are"
        shape = (2, predicted.levels, len(p))
        winner, loser = denoising_error(predicted.reference, predicted.policy).reshape(shape)
        abar = predicted.abar.reshape(shape)[0]  # [levels, B]
        side = (2 * p - 1).sign()
        loss = inversion_dpo(side * winner, side * loser, abar, self.beta)
        margin = 0.5 * self.beta * ((winner - loser) / (2 * abar)).mean(0)
        return ObjectiveOut(loss, margin)

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if not (inverts(inversion) and inversion.needs_reference):
            yield (
                "`inversion-dpo` compares on the reference's own path: "
                "`--set inversion.use=ddim --set inversion.by=reference`"
            )
