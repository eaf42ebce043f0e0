"""Objectives that see more than the margin: fine-tuning, single images (KTO), and MaPO, which has no reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smpo.components.objectives.common import inverts, of_the_preferred
from smpo.kinds import Inversion, Objective, ObjectiveOut, Predicted, Sampling, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ConditionalFineTuning", "DiffusionKTO", "MaPO", "SupervisedFineTuning"]


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


@register
class DiffusionKTO(Objective):
    """Diffusion-KTO: single images, each desirable or not; pairs are only where the labels come from.

        g = e_ref - e,   u = +beta (g - z0) if desirable, -beta (g - z0) if not,   loss = lambda_y (1 - U(u))

    z0 = max(0, mean of g over the whole update), without gradient. Utilities U: `kto` sigmoid(u), `loss-averse`
    log sigmoid(u), `risk-seeking` -log sigmoid(-u). An image is desirable if it was preferred at least once. A batch
    of B counts 2B images, drawn one by one, each with its own timestep.

    Li et al. 2024 (arXiv:2404.04465), scaling of its official code: no 1/2 with beta. That code takes z0 from each
    micro-batch of all devices; here it doesn't depend on how an update is cut.
    """

    use: Literal["kto"] = "kto"
    version: ClassVar[int] = 1
    needs_means: ClassVar[bool] = True

    beta: float = Field(1000.0, gt=0)
    """Pull towards the reference. The official script: 1000; the paper: 5000."""
    utility: Literal["kto", "loss-averse", "risk-seeking"] = "kto"
    """How gains and losses are felt."""
    positive_ratio: float = Field(0.8, gt=0, lt=1)
    """Share of desirable images among those that are shown."""
    weight_desirable: float = Field(1.0, ge=0)
    """lambda of desirable images."""
    weight_undesirable: float = Field(1.0, ge=0)
    """lambda of the others."""

    @property
    def at_reference(self) -> float | None:
        if self.weight_desirable != self.weight_undesirable:
            return None
        felt = {"kto": 0.5, "loss-averse": 1 + math.log(2), "risk-seeking": 1 - math.log(2)}[self.utility]
        return self.weight_desirable * felt

    def sampling(self) -> Sampling:
        return Sampling(desirable=self.positive_ratio)

    def batch_means(self, predicted: Predicted, p: Tensor) -> Mapping[str, Tensor]:
        first, second = predicted.gaps()
        return {"gain": -(first + second) / 2}

    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut:
        import torch

        from smpo.maths.baselines import kto, kto_baseline

        gap = torch.cat(predicted.gaps())  # [2B]
        wanted = torch.cat([p > 0.5, p < 0.5]) if predicted.desirable is None else predicted.desirable
        mean = predicted.means.get("gain")
        baseline = kto_baseline(gap) if mean is None else mean.clamp(min=0)
        loss = kto(
            gap,
            wanted,
            self.beta,
            baseline=baseline,
            utility=_UTILITIES[self.utility],
            weight_desirable=self.weight_desirable,
            weight_undesirable=self.weight_undesirable,
        )
        felt = self.beta * torch.where(wanted, -gap - baseline, gap + baseline)
        half = len(p)
        return ObjectiveOut(
            (loss[:half] + loss[half:]) / 2,
            (felt[:half] + felt[half:]) / 2,
            {"z0": baseline.expand(half), "desirable": wanted.reshape(2, half).float().mean(0)},
        )

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        if inverts(inversion):
            yield "`kto` was never meant for inverted noise: `inversion: {use: none, shared: false}` is its setting"
        elif getattr(inversion, "shared", False):
            yield (
                "`kto` shows unrelated images side by side, and they share their noise here: "
                "`--set inversion.shared=false`"
            )


_UTILITIES: dict[str, Literal["kto", "loss_averse", "risk_seeking"]] = {
    "kto": "kto",
    "loss-averse": "loss_averse",
    "risk-seeking": "risk_seeking",
}


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
