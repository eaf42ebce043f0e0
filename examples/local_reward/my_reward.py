"""A reward beside its experiment: `uses: [./my_reward.py]` imports this file, and its bytes belong to the identity."""

from typing import Literal

from smpo.api import Reward, register


@register
class Upwards(Reward):
    """Prefers points of the plane that lie higher."""

    use: Literal["upwards"] = "upwards"
    strength: float = 1.0
    """Multiplies the score."""

    def load(self, runtime):
        return Scorer(self.strength)


class Scorer:
    """Called with finished samples, points `[2]` in this world, and their prompts."""

    def __init__(self, strength):
        self.strength, self.key = strength, f"upwards-v1 x{strength:g}"

    def __call__(self, pictures, prompts):
        import torch

        return torch.tensor([self.strength * float(point[1]) for point in pictures])
