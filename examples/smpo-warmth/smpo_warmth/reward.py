"""A reward in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from smpo.api import Field, Reward, Runtime, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class Warmth(Reward):
    """How much more red than blue there is in a picture.

    score = strength * mean(red - blue),    channels from 0 to 1
    """

    use: Literal["warmth"] = "warmth"
    version: ClassVar[int] = 1
    learned: ClassVar[bool] = False

    strength: float = Field(1.0, gt=0)
    """Multiplies the score."""

    def load(self, runtime: Runtime) -> WarmthScorer:
        return WarmthScorer(self.strength)


class WarmthScorer:
    """The live thing. Scores are cached under `key`: change it when the same picture would get another score."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.key = f"warmth-v1 x{strength:g}"

    def __call__(self, pictures: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        import numpy as np
        import torch

        means = [np.asarray(picture.convert("RGB"), dtype=np.float64).mean((0, 1)) / 255 for picture in pictures]
        return torch.tensor([self.strength * (mean[0] - mean[2]) for mean in means], dtype=torch.float32)
