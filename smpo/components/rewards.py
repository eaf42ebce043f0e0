"""Rewards: recipes for scorers. Learned ones smooth labels and judge; closed-form ones judge."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from smpo.components.locations import locate, missing
from smpo.kinds import Reward, Runtime, Scorer
from smpo.registry.component import register

__all__ = ["ClipPreference", "PlaneOnAxis", "PlaneRadius", "ShapesJudge"]


@register
class ClipPreference(Reward):
    """A CLIP trained on preferences, as PickScore is: cosine of image and prompt embeddings.

        score = cos(image, prompt),  times exp(logit_scale) when `scaled`

    Kirstain et al. 2023 (arXiv:2305.01569). SmPO's labels use the bare cosine; tables print the scaled score.
    """

    use: Literal["clip-preference"] = "clip-preference"
    version: ClassVar[int] = 1

    weights: str
    """Folder or hub id of a transformers CLIPModel; `smpo:...` ships with smpo."""
    processor: str | None = None
    """Folder or hub id of tokenizer and image settings; null means beside the weights."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    scaled: bool = False
    """Multiply by the model's own temperature."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.clip_like import load_clip_scorer

        return load_clip_scorer(
            locate(self.weights),
            processor=locate(self.processor) if self.processor else None,
            revision=self.revision,
            scaled=self.scaled,
            runtime=runtime,
        )

    def check(self) -> str | None:
        return missing(self.weights) or (missing(self.processor) if self.processor else None)


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
