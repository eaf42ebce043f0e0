"""The shapes world's judge. What its annotators' reward is, a CLIP of smpo's own, is a card: `shapes-reward`."""

from __future__ import annotations

from typing import ClassVar, Literal

from smpo.kinds import Reward, Runtime, Scorer
from smpo.registry.component import register

__all__ = ["ShapesJudge"]


@register
class ShapesJudge(Reward):
    """The shapes world's independent judge: a formula on pixels (right object, right place, size, colour).

    It has never seen a label, so it can say whether a gain on the learned reward is real.
    """

    use: Literal["shapes-judge"] = "shapes-judge"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.judges import ShapesJudgeScorer

        return ShapesJudgeScorer()
