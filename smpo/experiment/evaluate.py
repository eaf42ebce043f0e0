"""The `evaluate:` block: how policy and base are compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from smpo.errors import SpecError
from smpo.experiment.block import Block
from smpo.kinds import PromptSet, Reward
from smpo.spec.identity import Neutral

__all__ = ["EvaluateSpec"]


def _whole(sizes: list[tuple[int, int]] | None) -> list[tuple[int, int]] | None:
    """Latents have an eighth of a picture's sides, in all published autoencoders."""
    for i, (width, height) in enumerate(sizes or ()):
        if min(width, height) < 8 or width % 8 or height % 8:
            raise SpecError(str(i), f"a picture of {width} x {height} has sides that aren't multiples of 8")
    return sizes


class EvaluateSpec(Block):
    """How policy and base are compared: the same prompts, the same seeds, every listed reward."""

    prompts: PromptSet
    rewards: list[Reward] = Field(min_length=1)
    """Judges. The reward that made the labels is marked and should not be alone."""
    guidance: float = Field(7.5, ge=0)
    """Classifier-free guidance that people will sample with; 1 means none."""
    steps: int = Field(50, gt=0)
    """Sampling steps."""
    images: int = Field(1, ge=1)
    """Images a prompt; scores are averaged within the prompt before prompts are compared."""
    seed: int = Field(1000, ge=0, lt=2**31)
    """First seed; each prompt and image has its own, the same for every model."""
    limit: int | None = Field(None, gt=0)
    """Use only so many prompts, spread evenly over the set."""
    sizes: Annotated[list[tuple[int, int]] | None, Field(min_length=1), AfterValidator(_whole), Neutral(None)] = None
    """Width and height of the pictures, such as `[[1024, 1024], [832, 1216]]`; null draws the model's own square. Of
    several, each prompt begins with one that its text decides, and its further images go through the others in turn."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Heights and widths of the pictures; none for the model's own."""
        return tuple((height, width) for width, height in self.sizes or ())
