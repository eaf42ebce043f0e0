"""Inversions: which noise belongs to an image. The walks themselves are in `smpo.maths.noising`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from smpo.errors import SpecError
from smpo.kinds import Draws, Inversion, Predict, Predictors
from smpo.maths.counting import Combine, Convention, Where, expected_passes
from smpo.registry.component import register
from smpo.spec.identity import Neutral

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.noising import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["BlendedInversion", "CommonInversion", "DDIMInversion", "NoInversion", "ReNoise"]


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
        from smpo.maths.noising import Noised

        noise = _fresh(x0, draws, shared=self.shared).to(x0)
        return Noised(schedule.add_noise(x0, noise, t), noise, 0)


class _Walk(Inversion):
    """What all walks up the deterministic path have in common."""

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
    guidance: Annotated[float, Neutral(1.0)] = Field(1.0, ge=0, le=30)
    """Classifier-free guidance on the way up; 1 means none (the paper), anything else costs twice as many passes."""

    def _refinements(self) -> int:
        return 0

    def _combine(self) -> Combine:
        return "none"

    def _weights(self) -> list[float] | None:
        return None

    def _where(self) -> Where:
        return "every"

    @property
    def needs_reference(self) -> bool:
        return self.by == "reference"

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance != 1

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.noising import invert

        noised = invert(
            x0,
            t,
            self._followed(predict),
            schedule,
            steps=self.steps,
            refinements=self._refinements(),
            combine=self._combine(),
            weights=self._weights(),
            where=self._where(),
            start=self.start,
            convention=self.convention,
            skip_first=self.skip_first,
        )
        return noised._replace(passes=noised.passes * self._networks())

    def _followed(self, predict: Predictors) -> Predict:
        told: Predict = getattr(predict, self.by)
        if not self.needs_unconditional:
            return told
        untold: Predict | None = getattr(predict, f"{self.by}_empty")
        assert untold is not None, "the loader adds empty prompts for whoever needs them"

        def both(x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor:
            from smpo.maths.mixing import guided

            return guided(told(x, t, rows), untold(x, t, rows), self.guidance)

        return both

    def _networks(self) -> int:
        return 2 if self.needs_unconditional else 1

    def expected_passes(self, timesteps: int, t_min: int, t_max: int) -> float:
        return self._networks() * expected_passes(
            self.steps,
            self._refinements(),
            timesteps,
            self.convention,
            t_min,
            t_max,
            combine=self._combine(),
            skip_first=self.skip_first,
            where=self._where(),
        )

    def max_steps(self) -> int:
        return self.steps


@register
class DDIMInversion(_Walk):
    """DDIM inversion: up the model's own deterministic path, using the noise predicted at the start of each hop.

    DDIM-InPO (Lu et al. 2025, arXiv:2503.18454) is `objective: dpo` on it, with a little noise added afterwards.
    """

    use: Literal["ddim"] = "ddim"
    version: ClassVar[int] = 1

    extra_noise: Annotated[float, Neutral(0.0)] = Field(0.0, ge=0, le=1)
    """Add this times the standard deviation of a DDIM step to the result; DDIM-InPO's code: 0.1."""

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.mixing import inpo_noise
        from smpo.maths.noising import Noised

        noised = super().__call__(x0, t, predict, schedule, draws)
        if not self.extra_noise:
            return noised
        x_t = inpo_noise(
            noised.x_t,
            _fresh(x0, draws, shared=False),
            t,
            schedule,
            delta=schedule.T // self.steps,
            scale=self.extra_noise,
        )
        return Noised(x_t, schedule.noise_between(x0, x_t, t), noised.passes)


class _Refined(_Walk):
    """Walks whose hops may be corrected."""

    refinements: int = Field(1, ge=0, le=20)
    """Corrections a hop, K; each costs one more network pass."""
    combine: Literal["average", "last"] = "average"
    """Use the mean of the K + 1 predictions (SmPO), or the last alone (plain fixed-point iteration)."""
    weights: Annotated[list[float] | None, Neutral(None)] = None
    """Weights of the K + 1 predictions, first to last, summing to 1; instead of `combine`."""
    where: Annotated[Where, Neutral("every")] = "every"
    """Correct every hop (SmPO's code), or only the last one, which lands on the timestep (a reading of its paper)."""

    @model_validator(mode="after")
    def _as_many_weights(self) -> _Refined:
        if self.weights is not None:
            wanted = self.refinements + 1
            if len(self.weights) != wanted or abs(sum(self.weights) - 1) > 1e-6:
                raise SpecError(
                    "weights",
                    f"{self.refinements} refinements need {wanted} weights that sum to 1; got {self.weights}",
                    related=["refinements"],
                )
        return self

    def _refinements(self) -> int:
        return self.refinements

    def _combine(self) -> Combine:
        return self.combine

    def _weights(self) -> list[float] | None:
        return self.weights

    def _where(self) -> Where:
        return self.where


@register
class ReNoise(_Refined):
    """ReNoise inversion: each hop is corrected by asking the network again where it arrived.

    Garibi et al. 2024 (arXiv:2403.14602). SmPO takes one correction at every hop and averages the two predictions.
    """

    use: Literal["renoise"] = "renoise"
    version: ClassVar[int] = 1


@register
class BlendedInversion(_Refined):
    """Inverted noise with fresh noise mixed in, at constant variance: noise = sqrt(1 - f) tau + sqrt(f) eps.

    An experiment of smpo's, between DPO's forward noise (f = 1) and SmPO's inversion (f = 0).
    """

    use: Literal["blend"] = "blend"
    version: ClassVar[int] = 1

    fresh: float = Field(0.5, ge=0, le=1)
    """f, the fresh part of the variance."""
    shared: bool = True
    """One fresh noise for both images of a pair; false draws one each."""

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.mixing import blend
        from smpo.maths.noising import Noised

        noised = super().__call__(x0, t, predict, schedule, draws)
        fresh = _fresh(x0, draws, shared=self.shared).to(noised.noise)
        noise = blend(noised.noise, fresh, self.fresh)
        return Noised(schedule.add_noise(x0.to(noise), noise, t), noise, noised.passes)


@register
class CommonInversion(_Refined):
    """One inverted noise for both images: the mean of the pair's two, stretched to their mean power.

    An experiment of smpo's: inversion gives winner and loser different noises, forward diffusion one for both, so that
    their errors differ by the images alone.
    """

    use: Literal["common"] = "common"
    version: ClassVar[int] = 1

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        from smpo.maths.mixing import common
        from smpo.maths.noising import Noised

        noised = super().__call__(x0, t, predict, schedule, draws)
        noise = common(noised.noise)
        return Noised(schedule.add_noise(x0.to(noise), noise, t), noise, noised.passes)


def _fresh(x0: Tensor, draws: Draws, *, shared: bool) -> Tensor:
    """Gaussian noise for a batch of pairs, in the streams that forward diffusion uses."""
    import torch

    winner = draws.normal("noise/winner", x0.shape[1:])
    loser = winner if shared else draws.normal("noise/loser", x0.shape[1:])
    return torch.cat([winner, loser])
