"""Inversions: which noise belongs to an image. The walks themselves are in `smpo.maths.noising`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.kinds import Draws, Inversion, Predictors
from smpo.maths.counting import Combine, Convention, expected_passes
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.noising import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["DDIMInversion", "NoInversion", "ReNoise"]


@register
class NoInversion(Inversion):
    """Forward diffusion with Gaussian noise, as in Diffusion-DPO: x_t = alpha x0 + sigma eps."""

    use: Literal["none"] = "none"
    version: ClassVar[int] = 1

    shared: bool = True
    """One noise for both images of a pair, as Diffusion-DPO does; false draws one each."""

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        import torch

        from smpo.maths.noising import Noised

        winner = draws.normal("noise/winner", x0.shape[1:])
        loser = winner if self.shared else draws.normal("noise/loser", x0.shape[1:])
        noise = torch.cat([winner, loser]).to(x0)
        return Noised(schedule.add_noise(x0, noise, t), noise, 0)


class _Walk(Inversion):
    """What DDIM inversion and ReNoise have in common."""

    steps: int = Field(10, ge=1, le=1000)
    """Points of the inversion grid over the whole schedule; a sample visits those below its timestep, then lands on
    the timestep itself. The paper's 9 steps are 10 here."""
    by: Literal["policy", "reference"] = "policy"
    """Whose path is followed: the network being trained (the paper), or the frozen one (stable, can be cached)."""
    convention: Convention = "exact"
    """`exact` lands on t. `lt_0_22` and `ge_0_22` reproduce the official code under diffusers before and since 0.22,
    whose latents lie at a grid level that isn't t."""
    start: Literal["one", "alpha0"] = "one"
    """alpha-bar of the clean latent: 1, or the schedule's first entry as the official code has it."""
    skip_first: bool = False
    """Leave out the hop to level 1, which hardly moves anything and costs as much as any other."""

    def _refinements(self) -> int:
        return 0

    def _combine(self) -> Combine:
        return "none"

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.noising import invert

        return invert(
            x0,
            t,
            getattr(predict, self.by),
            schedule,
            steps=self.steps,
            refinements=self._refinements(),
            combine=self._combine(),
            start=self.start,
            convention=self.convention,
            skip_first=self.skip_first,
        )

    def expected_passes(self, timesteps: int, t_min: int, t_max: int) -> float:
        return expected_passes(
            self.steps,
            self._refinements(),
            timesteps,
            self.convention,
            t_min,
            t_max,
            combine=self._combine(),
            skip_first=self.skip_first,
        )

    def max_steps(self) -> int:
        return self.steps


@register
class DDIMInversion(_Walk):
    """DDIM inversion: up the model's own deterministic path, using the noise predicted at the start of each hop."""

    use: Literal["ddim"] = "ddim"
    version: ClassVar[int] = 1


@register
class ReNoise(_Walk):
    """ReNoise inversion: each hop is corrected by asking the network again where it arrived.

    Garibi et al. 2024 (arXiv:2403.14602). SmPO takes one correction at every hop and averages the two predictions.
    """

    use: Literal["renoise"] = "renoise"
    version: ClassVar[int] = 1

    refinements: int = Field(1, ge=0, le=20)
    """Corrections a hop, K; each costs one more network pass."""
    combine: Literal["average", "last"] = "average"
    """Use the mean of the K + 1 predictions (SmPO), or the last alone (plain fixed-point iteration)."""

    def _refinements(self) -> int:
        return self.refinements

    def _combine(self) -> Combine:
        return self.combine
