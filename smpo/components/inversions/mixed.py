"""Experiments of smpo's own between inverted and forward noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.inversions.walk import RefinedInversion, fresh_noise
from smpo.kinds import Draws, Predictors
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["BlendedInversion", "CommonInversion"]


@register
class BlendedInversion(RefinedInversion):
    """Inverted noise with fresh noise mixed in, at constant variance: noise = sqrt(1 - f) tau + sqrt(f) eps.

    An experiment of smpo's, between DPO's forward noise (f = 1) and SmPO's inversion (f = 0).
    """

    use: Literal["blend"] = "blend"
    version: ClassVar[int] = 1

    fresh: float = Field(0.5, ge=0, le=1)
    """f, the fresh part of the variance."""
    shared: bool = True
    """One fresh noise for both images of a pair; false draws one each."""

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import Noised
        from smpo.maths.mixing import blend

        noised = super().__call__(x0, t, predict, schedule, draws)
        fresh = fresh_noise(x0, draws, shared=self.shared).to(noised.noise)
        noise = blend(noised.noise, fresh, self.fresh)
        return Noised(schedule.add_noise(x0.to(noise), noise, t), noise, noised.passes)


@register
class CommonInversion(RefinedInversion):
    """One inverted noise for both images: the mean of the pair's two, stretched to their mean power.

    An experiment of smpo's: inversion gives winner and loser different noises, forward diffusion one for both, so that
    their errors differ by the images alone.
    """

    use: Literal["common"] = "common"
    version: ClassVar[int] = 1

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import Noised
        from smpo.maths.mixing import common

        noised = super().__call__(x0, t, predict, schedule, draws)
        noise = common(noised.noise)
        return Noised(schedule.add_noise(x0.to(noise), noise, t), noise, noised.passes)
