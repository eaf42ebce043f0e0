"""Judges of points in closed form: the reward that labels follow, and a measure of side effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from smpo.worlds.plane.world import Floats, condition_of, off_axis, radius

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["OnAxisScorer", "RadialScorer"]


class RadialScorer:
    """How far out a point lies along its prompt's direction. The data have modes at 0.6 and 1.4."""

    def __init__(self, scale: float = 1.0) -> None:
        """`scale` multiplies every score; smoothings that normalise their scores don't notice it."""
        self.scale = scale
        self.key = f"plane-radial-v1 x{scale:g}"

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        scores = self.scale * radius(_points(pictures), condition_of(prompts))
        return torch.as_tensor(scores, dtype=torch.float32)


class OnAxisScorer:
    """Minus a point's distance from its prompt's ray: 0 at best, -0.1 on average over the data.

    Annotators hardly care, so a policy that gains radius should not lose here; one that does has been
    damaged.
    """

    key = "plane-on-axis-v1"

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        return torch.as_tensor(-off_axis(_points(pictures), condition_of(prompts)), dtype=torch.float32)


def _points(pictures: Sequence[Picture]) -> Floats:
    """`[N, 2]` float64."""
    return np.array([np.asarray(picture) for picture in pictures], dtype=np.float64).reshape(-1, 2)
