"""Inversions: which noise belongs to an image. The hops of the walk are in `smpo.maths.inversion`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from smpo.errors import SpecError
from smpo.kinds import Draws, Inversion, Predict, Predictors
from smpo.maths.hops import Convention, InversionConfig, Spacing, Where, shared_passes
from smpo.registry.component import register
from smpo.spec.identity import Neutral
from smpo.spec.removed import without

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = [
    "BlendedInversion",
    "CommonInversion",
    "DDIMInversion",
    "DDIMInversionBase",
    "NoInversion",
    "ReNoise",
    "RefinedInversion",
    "fresh_noise",
]


class DDIMInversionBase(Inversion):
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
    spacing: Annotated[Spacing, Neutral("even")] = "even"
    """Where the grid's points lie: `even` (the paper), or `quadratic`, dense at the low levels, where an image's little
    noise has to grow to much."""
    guidance: Annotated[float, Neutral(1.0)] = Field(1.0, ge=0, le=30)
    """Classifier-free guidance on the way up; 1 means none (the paper), anything else costs twice as many passes."""

    alphas: Annotated[Literal["exact", "float16"], Neutral("exact")] = "exact"
    """`float16` rounds alpha-bar before the target noise is made of it, as the official code does."""

    @property
    def needs_reference(self) -> bool:
        return self.by == "reference"

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance != 1

    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        from smpo.maths.inversion import invert

        images = _images(len(x0), predict.levels)
        noised = invert(x0, t, self.followed(predict), schedule, self.config(), images)
        return noised._replace(passes=noised.passes * self.networks())

    def config(self) -> InversionConfig:
        """The settings as `smpo.maths.inversion.invert` takes them."""
        return InversionConfig(
            self.steps,
            refinements=0,
            combine="none",
            start=self.start,
            convention=self.convention,
            skip_first=self.skip_first,
            spacing=self.spacing,
            half_alphas=self.alphas == "float16",
        )

    def followed(self, predict: Predictors) -> Predict:
        """The network whose path is taken, with guidance if there is any."""
        told: Predict = getattr(predict, self.by)
        if not self.needs_unconditional:
            return told
        untold: Predict | None = getattr(predict, f"{self.by}_empty")
        assert untold is not None, "the loader adds empty prompts for whoever needs them"

        def both(x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor:
            from smpo.maths.mixing import guided

            return guided(told(x, t, rows), untold(x, t, rows), self.guidance)

        return both

    def networks(self) -> int:
        """Passes for each prediction."""
        return 2 if self.needs_unconditional else 1

    def expected_passes(self, timesteps: int, t_min: int, t_max: int, levels: int = 1) -> float:
        return self.networks() * shared_passes(self.config(), levels, timesteps, t_min, t_max)

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, given: Any) -> Any:
        return without(given, {"precision": "training"})

    @model_validator(mode="after")
    def _compatible(self) -> DDIMInversionBase:
        if self.convention != "exact" and (self.spacing != "even" or self.skip_first):
            raise SpecError(
                "convention",
                f"`{self.convention}` reproduces released code, whose grid is even and complete",
                related=["spacing", "skip_first"],
                help="`inversion.convention: exact` takes any grid",
            )
        return self

    def max_steps(self) -> int:
        return self.steps


class RefinedInversion(DDIMInversionBase):
    """Walks whose hops may be corrected."""

    refinements: int = Field(1, ge=0, le=20)
    """Corrections a hop, K; each costs one more network pass."""
    combine: Literal["average", "last"] = "average"
    """Use the mean of the K + 1 predictions (SmPO), or the last alone (plain fixed-point iteration)."""
    weights: Annotated[list[float] | None, Neutral(None)] = None
    """Weights of the K + 1 predictions, first to last, summing to 1; instead of `combine`."""
    where: Annotated[Where, Neutral("every")] = "every"
    """Correct every hop (SmPO's code), or only the last one, which lands on the timestep (a reading of its paper)."""
    reuse_last: Annotated[bool, Neutral(False)] = False
    """Begin each hop with the last prediction of the hop before instead of a new one: K + 1 passes for the first hop
    and K for the others. Approximate, since that prediction was made near by and not here (docs/approximate.md)."""

    @model_validator(mode="after")
    def _as_many_weights(self) -> RefinedInversion:
        if self.weights is not None:
            wanted = self.refinements + 1
            if len(self.weights) != wanted or abs(sum(self.weights) - 1) > 1e-6:
                raise SpecError(
                    "weights",
                    f"{self.refinements} refinements need {wanted} weights that sum to 1; got {self.weights}",
                    related=["refinements"],
                )
        return self

    @model_validator(mode="after")
    def _asks_at_every_hop(self) -> RefinedInversion:
        if self.reuse_last and (self.refinements == 0 or self.where == "last"):
            wrong = "refinements" if self.refinements == 0 else "where"
            raise SpecError(
                "reuse_last",
                "a hop that begins with an old prediction has to be corrected, or the network is never asked again",
                related=[wrong],
                help="at least one refinement, at every hop: `refinements: 1` and `where: every`",
            )
        return self

    def config(self) -> InversionConfig:
        return replace(
            super().config(), refinements=self.refinements, combine=self.combine, weights=self.weights,
            where=self.where, reuse_last=self.reuse_last,
        )  # fmt: skip


def _images(rows: int, levels: int) -> list[int] | None:
    """To which image each row belongs; rows run over sides, then levels, then pairs."""
    if levels == 1:
        return None
    pairs = rows // (2 * levels)
    return [side * pairs + pair for side in (0, 1) for _ in range(levels) for pair in range(pairs)]


def fresh_noise(x0: Tensor, draws: Draws, *, shared: bool) -> Tensor:
    """Gaussian noise for a batch of pairs, in the streams that forward diffusion uses."""
    import torch

    winner = draws.normal("noise/winner", x0.shape[1:])
    loser = winner if shared else draws.normal("noise/loser", x0.shape[1:])
    return torch.cat([winner, loser])


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
