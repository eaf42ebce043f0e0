"""Inversions of the papers: forward noise, DDIM's path, and ReNoise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from smpo.components.inversions.walk import DDIMInversionBase, RefinedInversion, fresh_noise
from smpo.kinds import Draws, Inversion, Predictors
from smpo.registry.component import register
from smpo.spec.identity import Neutral

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["DDIMInversion", "NoInversion", "ReNoise"]


@register
class NoInversion(Inversion):
    """Forward diffusion with Gaussian noise, as in Diffusion-DPO: x_t = alpha x0 + sigma eps."""

    use: Literal["none"] = "none"
    version: ClassVar[int] = 1

    shared: bool = True
    """One noise for both images of a pair, as Diffusion-DPO does; false draws one each."""

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import Noised

        noise = fresh_noise(x0, draws, shared=self.shared).to(x0)
        return Noised(schedule.add_noise(x0, noise, t), noise, 0)


@register
class DDIMInversion(DDIMInversionBase):
    """DDIM inversion: up the model's own deterministic path, using the noise predicted at the start of each hop.

    DDIM-InPO (Lu et al. 2025, arXiv:2503.18454) is `objective: dpo` on it, with a little noise added afterwards.
    """

    use: Literal["ddim"] = "ddim"
    version: ClassVar[int] = 1

    extra_noise: Annotated[float, Neutral(0.0)] = Field(0.0, ge=0, le=1)
    """Add this times the standard deviation of a DDIM step to the result; DDIM-InPO's code: 0.1."""

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import Noised
        from smpo.maths.mixing import inpo_noise

        noised = super().__call__(x0, t, predict, schedule, draws)
        if not self.extra_noise:
            return noised
        x_t = inpo_noise(
            noised.x_t,
            fresh_noise(x0, draws, shared=False),
            t,
            schedule,
            delta=schedule.T // self.steps,
            scale=self.extra_noise,
        )
        return Noised(x_t, schedule.noise_between(x0, x_t, t), noised.passes)


@register
class ReNoise(RefinedInversion):
    """ReNoise inversion: each hop is corrected by running the network again at the point of arrival.

    Garibi et al. 2024 (arXiv:2403.14602). SmPO takes one correction at every hop and averages the two predictions.
    """

    use: Literal["renoise"] = "renoise"
    version: ClassVar[int] = 1
