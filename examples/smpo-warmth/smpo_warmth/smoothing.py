"""A smoothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from smpo.api import Field, ScoreStats, Smoothing, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class DeadZone(Smoothing):
    """The reward decides, but not where it hardly sees a difference: such pairs are ties.

    p = 1 if r_w - r_l > width * std,  0 if r_l - r_w > width * std,  else 1/2
    """

    use: Literal["dead-zone"] = "dead-zone"
    version: ClassVar[int] = 1

    width: float = Field(0.5, ge=0)
    """Standard deviations of the scores within which a pair is a tie."""

    @property
    def is_hard(self) -> bool:
        return True

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        gap = winner - loser
        return 0.5 * (1 + gap.sign() * (gap.abs() > self.width * stats.std))
