"""Rewards of the plane world, where pictures are points."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from smpo.kinds import Reward, Runtime, Scorer
from smpo.registry.component import register

__all__ = ["PlaneOnAxis", "PlaneRadius"]


@register
class PlaneRadius(Reward):
    """The plane world's reward: how far a point lies out in its condition's direction."""

    use: Literal["plane-radius"] = "plane-radius"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    scale: float = Field(1.0, gt=0)
    """Multiplies the score."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.worlds.plane.scorers import RadialScorer

        return RadialScorer(scale=self.scale)


@register
class PlaneOnAxis(Reward):
    """Minus a point's distance from its condition's axis: falls when a policy gains reward by breaking things."""

    use: Literal["plane-on-axis"] = "plane-on-axis"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.worlds.plane.scorers import OnAxisScorer

        return OnAxisScorer()
