"""What must be true of a healthy run, and the words for when it isn't."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smpo.engine.step import StepOutput
from smpo.errors import RunError
from smpo.kinds import Objective

__all__ = ["NonFiniteLoss", "RunawayInversion", "Suspect", "WinnerDrop", "assert_starts_at_reference"]


@dataclass(frozen=True)
class Suspect:
    """A pair that took part in a broken update, with its numbers."""

    pair: str
    values: Mapping[str, float]


class NonFiniteLoss(RunError):
    """The update was not applied: the weights are still those of the step before."""

    def __init__(self, step: int, reason: str, suspects: Sequence[Suspect], *, help: str | None = None) -> None:
        shown = ", ".join(s.pair for s in suspects[:3])
        cause, way_out = _cause(step, suspects)
        super().__init__(
            f"update {step + 1} stopped the run: {reason}{cause} "
            f"(pairs {shown}{', …' if len(suspects) > 3 else ''}); the update was not applied",
            help=help or way_out,
        )
        self.step, self.reason = step, reason
        self.suspects = list(suspects)


def _cause(step: int, suspects: Sequence[Suspect]) -> tuple[str, str]:
    """The first quantity of an update, in the order of computation, that isn't finite for the first suspect, and the
    settings that act on it."""
    values = suspects[0].values if suspects else {}
    ranges = "`--set train.precision=bf16`, or fp32, has a larger range than fp16"
    weaker = f"lower `train.lr`; {ranges}" if step else f"nothing is trained yet: look at the base model; {ranges}"

    def broken(*names: str) -> bool:
        return any(not math.isfinite(values[name]) for name in names if name in values)

    if broken("p"):
        return (
            ", and their smoothed preferences `p` are not finite",
            "look at the rewards' scores of these pairs",
        )
    if broken("tau_squared"):
        return (
            ", and their latents or their inverted noise (`tau_squared`) are not finite",
            "`--set inversion.by=reference`, `inversion.guidance=1` and a larger `train.t_min` keep an inversion from "
            "running away; with `inversion=none` only the latents are left as the cause",
        )
    if broken("error/winner", "error/loser", "error"):
        return ", and the policy's predictions are not finite", weaker
    if broken("gap/winner", "gap/loser"):
        return ", and the reference's predictions are not finite", f"look at the base model; {ranges}"
    if broken("loss"):
        return (
            ", though noise and predictions are finite",
            "a smaller `objective.beta`, or a lower `train.lr`",
        )
    return (
        "",
        "lower `train.lr` or raise `train.t_min`; policy inversion that runs away shows in `tau_squared`: try `--set "
        "inversion.by=reference`",
    )


def assert_starts_at_reference(
    objective: Objective, outcome: StepOutput, unlike: Callable[[], str] = lambda: ""
) -> None:
    """Before the first update policy and reference are one network, so the loss is known (ln 2 for logistic losses).

    The official code breaks this by running the two in different precisions (method.md D22), and the difference is
    multiplied by beta/2. `unlike` returns a sentence about what differs (`operators.unlike_operator`); it is called
    where the loss is off. Raises `RunError` with it.
    """
    expected = objective.at_reference
    if expected is None:
        return
    worst = float((outcome.loss.detach().float() - expected).abs().max())
    if math.isfinite(worst) and worst > 1e-5:  # a loss that isn't finite has other causes: `NonFiniteLoss`
        found = unlike()
        raise RunError(
            f"before any training the loss should be {expected:.6f} for every pair, but is off by {worst:.2g}: policy "
            f"and reference don't compute the same thing{'; ' * bool(found)}{found}",
            help=_way_out(found),
        )


def _way_out(unlike: str) -> str:
    if "attention" in unlike:
        return "choose its kernel for both: `--set runtime.attention=efficient`, or `math`, which any GPU has"
    if "convolution" in unlike:
        return "leave out `runtime.channels_last`; with `--set train.precision=fp32` the difference is smallest"
    if "operator that differs" in unlike:
        return "leave out the settings of `runtime` that change kernels; `--set train.precision=fp32` differs least"
    return "both must have the same weights; dropout in the base model, or a kernel whose result varies, does this too"


class RunawayInversion:
    """Watches the mean of tau squared: about 1 for images and well below for the plane, while the inverted noise is
    what the network was trained on. Growth means that the policy inverts itself into places it has never seen.
    """

    def __init__(self, factor: float = 4.0, healthy: float = 2.0, settle: int = 10) -> None:
        self.factor, self.healthy, self.settle = factor, healthy, settle
        self._first: list[float] = []
        self._said = False

    def watch(self, tau_squared: float) -> str | None:
        """A sentence, once, when the alarm goes off; `factor` times the level of the first `settle` updates."""
        settling = len(self._first) < self.settle
        if settling:
            self._first.append(tau_squared)
        level = min(self._first)
        limit = self.healthy * self.factor if settling else max(self.healthy, self.factor * level)
        if self._said or tau_squared <= limit:
            return None
        self._said = True
        if len(self._first) == 1 and settling:
            return (
                f"the inverted noise is far too strong from the start: its mean square is {tau_squared:.3g}, that of "
                "noise is 1. Guidance in the inversion does this: `--set inversion.guidance=1`. So does the official "
                "time grid at small timesteps: `inversion.convention=exact`, or raise `train.t_min`"
            )
        return (
            f"inversion is running away: the mean square of the inverted noise is {tau_squared:.3g}, it began at "
            f"{level:.3g}. `--set inversion.by=reference` is stable; a lower `train.lr` helps too"
        )


class WinnerDrop:
    """Watches whether the policy denoises the *preferred* images worse than the reference does.

    A preference loss sees only a difference: making losers unlikely and winners a little less unlikely lowers it, and
    the policy then draws worse images (likelihood displacement). Watched is
    the gap as a share of the reference's error, averaged over about `memory` updates. Show it errors on drawn noise:
    on inverted noise the network that was followed is right by construction, and every change looks like a loss.
    """

    def __init__(self, limit: float = 0.05, memory: int = 20) -> None:
        self.limit, self.memory = limit, memory
        self._mean, self._seen, self._said = 0.0, 0, False

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        """A sentence, once, when the winners' error has risen by more than `limit` of the reference's."""
        if "gap/winner" not in metrics:
            return None
        gap = metrics["gap/winner"]
        reference = metrics["error/winner"] - gap
        self._seen += 1
        self._mean += (gap / max(reference, 1e-12) - self._mean) / min(self._seen, self.memory)
        if self._said or self._seen < self.memory or self._mean <= self.limit:
            return None
        self._said = True
        return (
            f"the policy has become {self._mean:.0%} worse than the base at denoising the preferred images: the margin "
            "grows because the others get worse still. A lower `train.lr` or a larger beta keeps closer to the base"
        )
