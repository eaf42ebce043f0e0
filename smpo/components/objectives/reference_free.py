"""Objectives without a reference model: half of the memory of full fine-tuning, and no anchor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import inverts, of_the_preferred
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MaPO"]


@register
class MaPO(Objective):
    """MaPO: fine-tuning on winners and, at once, a margin over losers in the policy's own likelihood.

        loss = e_w - beta log sigmoid( T (phi(e_w) - phi(e_l)) ),    phi(e) = s e / (exp(s e) - 1)

    Hong et al. 2024 (arXiv:2406.06424), as in its released code; no reference is loaded. `form: power` is what the
    paper's second version prints, read from a garbled text: e_w - log sigmoid(phi(e_w)^beta - phi(e_l)^beta) / beta.
    Ties are read both ways.
    """

    use: Literal["mapo"] = "mapo"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False

    form: Literal["code", "power"] = "code"
    """The released code's loss, or the printed one."""
    beta: float = Field(0.1, gt=0)
    """Strength of the margin. The code: 0.1; the printed form: 8."""
    snr: float = Field(0.5, gt=0)
    """s, for `form: code`."""
    scale: float = Field(1000.0, gt=0)
    """T, for `form: code`: the number of training timesteps."""

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        def read(pair: Predicted) -> tuple[Tensor, Tensor]:
            from smpo.maths.baselines import mapo, mapo_power

            winner, loser = pair.errors()
            if self.form == "code":
                loss = mapo(winner, loser, beta=self.beta, snr=self.snr, T=self.scale)
            else:
                loss = mapo_power(winner, loser, beta=self.beta)
            return loss, winner

        loss, winner = of_the_preferred(predicted, p, read)
        first, second = predicted.errors()
        return ObjectiveOut(loss, (second - first).detach(), {"error/fitted": winner})

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield (
                "`mapo` reads the policy's likelihood off random noise; on inverted noise its errors are near zero and "
                "the margin says little: use `inversion: none`"
            )
        if inversion.needs_reference:
            yield "`mapo` needs no reference, but the inversion follows it, so it is loaded all the same"
