"""fp16 and its loss scale: an update whose gradients overflow is repeated with a smaller scale.

fp16 holds magnitudes from 6e-8 to 65,504. `torch.amp.GradScaler` multiplies the loss by a scale, so that small
gradients don't vanish, and divides the gradients by it afterwards. A scale that is too large makes them infinite; the
scaler then halves it, and doubles it again after 2,000 finite updates, so overflow is part of its work.

torch's recipe skips such an update: its pairs are lost, while the schedule and the count of steps go on. Here the
attempt is skipped and the update repeated. Order, timesteps, noise and dropout are functions of (seed, position), hence
the next attempt sees the same pairs, the same noise and the same learning rate, at the price of one update's work,
which a skipped update costs too. `train.steps` counts applied updates only, and fp16 visits the same pairs as fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from smpo.engine.monitoring.alerts import NonFiniteLoss, Suspect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from smpo.engine.monitoring.tracker import StepReport

__all__ = ["Attempt", "Overflows", "in_words"]

SMALLEST = 1.0
"""A loss scale below this one makes gradients smaller instead of larger: the cause isn't the scale."""


class Attempt(NamedTuple):
    """One computation of an update's gradients. `norm`: of the unscaled gradients, on the device."""

    metrics: dict[str, float]
    norm: Tensor
    suspects: Callable[[], Sequence[Suspect]]


@dataclass
class Overflows:
    """Counts of a run: updates that were applied, and attempts that were skipped because gradients overflowed."""

    applied: int = 0
    skipped: int = 0
    latest: int = 0
    """Skipped attempts at the latest update."""
    _before: dict[str, Any] | None = field(default=None, repr=False)
    """The scaler's state before the first attempt at an update, while that update is repeated."""

    @property
    def share(self) -> float:
        """Skipped attempts / all attempts."""
        return self.skipped / max(1, self.skipped + self.applied)

    @property
    def many(self) -> bool:
        """Whether more attempts overflow than those at the start, and than one for each growth of the scale."""
        return self.skipped > 10 and self.share > 0.05

    @property
    def sentence(self) -> str:
        return (
            f"{self.skipped:,} of {self.skipped + self.applied:,} attempts at an update were skipped "
            f"({self.share:.2%}) because gradients overflowed in fp16, and repeated with a smaller loss scale"
        )

    def finite(
        self,
        step: int,
        attempt: Callable[[], Attempt],
        scaler: torch.amp.GradScaler,
        undo: Callable[[], None],
    ) -> Attempt:
        """The first attempt with finite gradients; `undo` drops those of the others.

        The k-th overflow in a row divides the scale by 2^k: 65,536, 32,768, 8,192, 1,024, 64, 2. Raises `NonFiniteLoss`
        where the next scale would be below 1, so after at most six attempts from torch's first scale.
        """
        scales: list[float] = []
        while True:
            found = attempt()
            if math.isfinite(found.metrics["grad_norm"]) or not scaler.is_enabled():
                break
            self._before = self._before or scaler.state_dict()
            scales.append(found.metrics["loss_scale"])
            smaller = scales[-1] * 0.5 ** len(scales)
            if smaller < SMALLEST:
                raise _endless(step, scales, found)
            undo()
            _reset(scaler, {**self._before, "scale": smaller, "_growth_tracker": 0})
        self._before = None
        self.applied, self.skipped, self.latest = self.applied + 1, self.skipped + len(scales), len(scales)
        if scaler.is_enabled():
            found.metrics.update(skipped_updates=self.skipped, skipped_share=self.share)
        return found

    def abandon(self, scaler: torch.amp.GradScaler) -> None:
        """Drop the attempts at an update that isn't applied: restore the scaler as it was before the first of them."""
        _reset(scaler, self._before or scaler.state_dict())
        self._before = None

    def state_dict(self) -> dict[str, int]:
        return {"applied_updates": self.applied, "skipped_updates": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Checkpoints of earlier versions have no counts."""
        self.applied, self.skipped = state.get("applied_updates", 0), state.get("skipped_updates", 0)


def in_words(report: StepReport) -> str:
    """The repetitions of one update, for the console."""
    times = "once" if report.skipped == 1 else f"{report.skipped} times"
    return (
        f"update {report.step} was repeated {times}, because its gradients overflowed in fp16; the loss scale is "
        f"{report.metrics['loss_scale']:g} now, and {report.metrics['skipped_share']:.2%} of the attempts were skipped"
    )


def _reset(scaler: torch.amp.GradScaler, state: dict[str, Any]) -> None:
    """Give the scaler this state, and clear its record of unscaled gradients."""
    with suppress(AssertionError):  # it has unscaled none
        scaler.update()
    scaler.load_state_dict(state)


def _endless(step: int, scales: Sequence[float], found: Attempt) -> NonFiniteLoss:
    tried = f"{scales[0]:g} down to {scales[-1]:g}" if len(scales) > 1 else f"{scales[0]:g}"
    return NonFiniteLoss(
        step,
        f"the loss is finite, but in fp16 its gradients overflow at every loss scale ({tried})",
        found.suspects(),
        help="`--set train.precision=bf16` has the range of float32 and needs no loss scale; in fp16 a smaller "
        "`objective.beta` or a lower `train.lr` keeps gradients and weights smaller",
    )
