"""The `train:` block: everything about training that may change its result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from smpo.errors import SpecError
from smpo.experiment.block import Block
from smpo.kinds import Optimiser
from smpo.registry.component import slot
from smpo.spec.identity import Neutral

__all__ = ["TrainSpec"]


class TrainSpec(Block):
    """What is optimised, for how long, on which stream of samples."""

    steps: int = Field(gt=0)
    """Optimiser updates."""
    batch: int = Field(gt=0)
    """Pairs per update, over all devices. Accumulation is derived from it."""
    lr: float = Field(gt=0)
    """Peak learning rate, as the optimiser sees it (not multiplied by the batch)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the learning rate after the warm-up; linear and cosine end at zero."""
    warmup: int = Field(0, ge=0)
    """Updates over which the learning rate rises linearly from zero."""
    warmup_from: Annotated[Literal["first", "zero"], Neutral("first")] = "first"
    """Rate of the warm-up's first update: its `first` share of the peak, so that it moves already, or `zero`, as
    diffusers' schedules have it (so has the official code); the peak then comes one update later."""
    clip: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient; null turns clipping off."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Order, timesteps, noise, dropout and augmentation follow from it. Runs that differ only here form a group."""
    prompt_dropout: float = Field(0.0, ge=0, le=1)
    """Share of pairs that are trained with the empty prompt (SmPO uses 0.2)."""
    flip: bool | Literal["apart"] = False
    """Mirror half of the pairs, winner and loser together; `apart` lets each image have its own coin, as the official
    code does, so that a preference may be learnt for a side."""
    crop: Literal["centre", "random"] = "centre"
    """Where non-square images are cut, the same for both; random crops can't be cached."""
    posterior: Literal["sample", "mean"] = "sample"
    """Draw latents from the VAE's posterior at each visit, as the official code does, or use its mean."""
    t_min: int = Field(0, ge=0)
    """Smallest timestep that is drawn. Near 0 the inverted noise is poorly determined (method 2c)."""
    t_max: int | None = Field(None, ge=1)
    """Largest timestep that is drawn; null means the last of the schedule."""
    timesteps_per_pair: Annotated[int, Neutral(1)] = Field(1, ge=1, le=64)
    """Timesteps at which each pair is looked at, one in each of as many equal parts of the range, each with a loss of
    its own. They share one walk of the inversion: cheaper per loss, and the same expected gradient, but gradients of
    one pair correlate, so that two such losses are worth less than two pairs."""
    stratified: Annotated[bool, Neutral(False)] = False
    """Spread the timesteps of an update's pairs evenly over the range instead of drawing each by itself: the same
    expected gradient with less variance."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of policy and reference alike; weights that are trained stay in fp32. fp16 scales the loss, and
    repeats an update whose gradients overflow with a smaller scale; bf16 needs neither."""
    holdout: Annotated[int, Neutral(0)] = Field(0, ge=0)
    """Pairs that are kept out of training, with all that share an image with them, on which the policy's preferences
    are measured during training. The choice of pairs doesn't depend on the seed."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the policy; when set, the average is evaluated and saved."""
    optimiser: Optimiser = slot("adamw")

    @property
    def halves(self) -> bool:
        """Whether what encoders made is stored in 16 bits: where networks compute in 16 bits, which rounds more. In
        fp32 it is stored as it is."""
        return self.precision != "fp32"

    @model_validator(mode="after")
    def _consistent(self) -> TrainSpec:
        if self.warmup > self.steps:
            raise SpecError(
                "warmup",
                f"the warm-up of {self.warmup} updates is longer than the run of {self.steps}",
                related=["steps"],
            )
        if self.t_max is not None and self.t_max <= self.t_min:
            raise SpecError("t_max", f"t_max {self.t_max} must be above t_min {self.t_min}", related=["t_min"])
        return self
