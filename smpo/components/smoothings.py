"""Smoothings: from votes and reward scores to the probability that the winner wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from smpo.errors import SpecError
from smpo.kinds import ScoreStats, Smoothing
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Hard", "Label", "Likelihood", "Margin", "PseudoLabels", "Votes"]


@register
class Hard(Smoothing):
    """The majority is right: p = 1, and 1/2 for ties."""

    use: Literal["hard"] = "hard"
    version: ClassVar[int] = 1
    needs_reward: ClassVar[bool] = False

    @property
    def is_hard(self) -> bool:
        return True

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        return 0.5 * (1 + (2 * share - 1).sign())


@register
class Label(Smoothing):
    """The majority is right with probability 1 - epsilon: p = 1 - epsilon, and 1/2 for ties."""

    use: Literal["label"] = "label"
    version: ClassVar[int] = 1
    needs_reward: ClassVar[bool] = False

    epsilon: float = Field(0.1, ge=0, le=0.5)
    """Share of labels that are believed to be flipped."""

    @property
    def is_hard(self) -> bool:
        return self.epsilon == 0

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        from smpo.maths.smoothing import label_smoothing

        return label_smoothing(0.5 * (1 + (2 * share - 1).sign()), self.epsilon)


@register
class Votes(Smoothing):
    """The share of the people who preferred the winner: p = share. Needs data with several votes a pair."""

    use: Literal["votes"] = "votes"
    version: ClassVar[int] = 1
    needs_reward: ClassVar[bool] = False

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        return share


@register
class Likelihood(Smoothing):
    """SmPO's smoothing: the probability of the winner's win under a reward model, independent of the label.

        r' = (r - low) / (high - low),    p = sigmoid( (r'_w - r'_l) / temperature )

    Lu et al. 2025, eq. 10 and the official preprocessing. `low` and `high` are the extremes over the whole training
    table, stored with the scores, unless they are given. With r' in [0, 1] and temperature 1, p lies in [0.27, 0.73].
    """

    use: Literal["likelihood"] = "likelihood"
    version: ClassVar[int] = 1

    low: float | None = None
    """Score that is mapped to 0; null takes the smallest in the training table."""
    high: float | None = None
    """Score that is mapped to 1; null takes the largest in the training table."""
    temperature: float = Field(1.0, gt=0)
    """Below 1 makes preferences sharper."""
    clamp: bool = False
    """Cut scores outside low..high (the official code doesn't)."""

    @model_validator(mode="after")
    def _ordered(self) -> Likelihood:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise SpecError("low", f"low {self.low} must be below high {self.high}", related=["high"])
        return self

    @property
    def needs_statistics(self) -> bool:
        return self.low is None or self.high is None

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        import torch

        from smpo.errors import RunError
        from smpo.maths.smoothing import min_max, softmax_preference

        low = stats.low if self.low is None else self.low
        high = stats.high if self.high is None else self.high
        if low == high:  # nothing to tell apart
            return torch.full_like(winner, 0.5)
        if low > high:
            raise RunError(
                f"the smoothing's range is empty: low {low:g}, high {high:g} (scores run from {stats.low:g} to "
                f"{stats.high:g})",
                help="set both `smoothing.low` and `smoothing.high`, or neither",
            )
        scaled = [min_max(scores.double(), low, high, clamp=self.clamp) for scores in (winner, loser)]
        return softmax_preference(*scaled, temperature=self.temperature).to(winner.dtype)


@register
class Margin(Smoothing):
    """Bradley-Terry on the reward itself: the probability that its own scores give to the winner's win.

        p = sigmoid( (r_w - r_l) / temperature ),    r raw, or divided by its standard deviation over the table

    On raw scores with the reward's own temperature this is the reward model's belief (PickScore is trained so). Unlike
    `likelihood` it doesn't depend on the two most extreme images of the table.
    """

    use: Literal["margin"] = "margin"
    version: ClassVar[int] = 1

    temperature: float = Field(1.0, gt=0)
    """Difference of scores at which the winner wins with probability 0.73; below 1 makes preferences sharper."""
    standardise: bool = True
    """Measure differences in standard deviations of the scores, so that rewards on any scale compare."""

    @property
    def needs_statistics(self) -> bool:
        return self.standardise

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        import torch

        from smpo.maths.smoothing import softmax_preference

        unit = stats.std if self.standardise else 1.0
        if unit == 0:  # nothing to tell apart
            return torch.full_like(winner, 0.5)
        p = softmax_preference(winner.double(), loser.double(), temperature=self.temperature * unit)
        return p.to(winner.dtype)


@register
class PseudoLabels(Smoothing):
    """The reward decides: p = 1 where it prefers the winner, 0 where it prefers the loser, 1/2 at equal scores.

    "AI feedback" of Diffusion-DPO (Wallace et al. 2024, section 5.4); votes only say which pairs there are.
    """

    use: Literal["pseudo-labels"] = "pseudo-labels"
    version: ClassVar[int] = 1

    @property
    def needs_statistics(self) -> bool:
        return False

    @property
    def is_hard(self) -> bool:
        return True

    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        return 0.5 * (1 + (winner - loser).sign())
