"""Several rewards as one."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from smpo.components.rewards.member import Member
from smpo.errors import SpecError
from smpo.kinds import Reward, Runtime, Scorer
from smpo.registry.component import register

__all__ = ["Mix"]


@register
class Mix(Reward):
    """Several rewards as one: a weighted sum, an average of ranks, or a vote.

        sum    Σ w (r - centre) / scale / Σ w
        rank   Σ w F(r) / Σ w,  F = share of the member's population that scores lower (`knots`)
        vote   Σ w [r > centre] / Σ w,  half a vote at the centre itself

    Ranks and votes are against a population that is fixed beforehand, because a score may not depend on what else is
    in the batch. docs/rewards.md defines them for pairs.
    """

    use: Literal["mix"] = "mix"
    version: ClassVar[int] = 1

    how: Literal["sum", "rank", "vote"] = "sum"
    """How members' scores become one."""
    members: list[Member] = Field(min_length=1)
    """The rewards that are held; every one of them is in memory at once."""

    @model_validator(mode="after")
    def _populations(self) -> Mix:
        for index, member in enumerate(self.members):
            where = f"members.{index}"
            if self.how == "rank":
                knots = self._knots(member)
                if len(knots) < 2:
                    raise SpecError(
                        where,
                        f"to rank by `{member.reward.use}`, its usual scores must be known",
                        help="give `knots`, such as [lowest, median, highest] over your pairs",
                    )
                if any(low >= high for low, high in pairwise(knots)):
                    raise SpecError(f"{where}.knots", "knots must rise")
            if self.how == "vote" and member.centre is None and member.band is None:
                raise SpecError(
                    where,
                    f"for `{member.reward.use}` to vote, its usual score must be known",
                    help="give `centre`, such as the median over your pairs",
                )
        return self

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.ensemble import EnsembleScorer, Population

        parts = []
        for member in self.members:
            middle = sum(member.band) / 2 if member.band and self.how == "vote" else 0.0
            centre = member.centre if member.centre is not None else middle
            knots = tuple(self._knots(member)) if self.how == "rank" else ()
            scorer = member.reward.load(runtime)
            parts.append((scorer, Population(member.weight, centre, member.scale, knots)))
        return EnsembleScorer(parts, self.how)

    def check(self) -> str | None:
        found = (member.reward.check() for member in self.members)
        return next((reason for reason in found if reason), None)

    def tflop(self) -> float | None:
        counted = [member.reward.tflop() for member in self.members]
        return None if None in counted else sum(filter(None, counted))

    def _knots(self, member: Member) -> list[float]:
        return member.knots or list(member.band or ())
