"""The `evaluate:` block: how policy and base are compared."""

from __future__ import annotations

from pydantic import Field

from smpo.experiment.block import Block
from smpo.kinds import PromptSet, Reward

__all__ = ["EvaluateSpec"]


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
