"""Scorers in closed form: the shapes world's judge, which looks at pixels and knows no network.

They are what a learned reward is held against: report with the judge, train with the reward.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smpo.errors import RunError

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["ShapesJudgeScorer"]


class ShapesJudgeScorer:
    """A `kinds.Scorer` over `smpo.worlds.shapes.judge`.

    `part` chooses the whole score or something it is made of (`right_colour`, `size`, `centring`, ...), so
    that an evaluation can say *what* became better. The judge is its source code: `key` is a hash of it.
    """

    def __init__(self, part: str = "score") -> None:
        from smpo.worlds.shapes import judge, prompts, scene

        sources = "".join(inspect.getsource(module) for module in (judge, scene, prompts))
        self.part = part
        self.key = f"shapes-judge/{part}/{hashlib.sha256(sources.encode()).hexdigest()[:32]}"

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU. Raises `RunError` for prompts of another world and unknown parts."""
        return torch.tensor([self._one(*pair) for pair in zip(pictures, prompts, strict=True)])

    def _one(self, picture: Picture, prompt: str) -> float:
        from smpo.worlds.shapes.judge import measure

        try:
            parts = measure(picture, prompt)
        except ValueError as error:
            raise RunError(f"the shapes judge can't judge this: {error}") from error
        if self.part not in parts:
            raise RunError(f"the shapes judge has no part {self.part!r}", help=f"it has {', '.join(sorted(parts))}")
        return parts[self.part]
