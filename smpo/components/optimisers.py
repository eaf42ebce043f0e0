"""Optimisers. The learning rate and its schedule belong to `train`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from smpo.errors import MachineError
from smpo.kinds import Optimiser
from smpo.registry.component import register
from smpo.registry.requirements import require

if TYPE_CHECKING:
    import torch
    from torch import nn

_WITHOUT_8_BITS = {"mps"}

__all__ = ["Adafactor", "AdamW", "AdamW8bit"]


class _AdamW(Optimiser):
    """The settings of AdamW, whatever its moments are stored in."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled pull of the weights towards zero, times the learning rate."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second moment, so that nothing is divided by zero."""


@register
class AdamW(_AdamW):
    """AdamW (Loshchilov and Hutter 2019), torch's fused kernel."""

    use: Literal["adamw"] = "adamw"
    version: ClassVar[int] = 1
    state_bytes: ClassVar[float] = 8.0
    """For each parameter: two moments in float32. `smpo plan` counts with it."""
    shardable: ClassVar[bool] = True

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            list(parameters),
            lr=lr,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            eps=self.eps,
            fused=True,
        )


@register
class AdamW8bit(_AdamW):
    """AdamW with moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861), from bitsandbytes: a quarter of
    the memory.

    Moments are quantised in blocks of 256 numbers with a scale each; tensors of fewer than 4096 numbers keep them in
    float32. Steps are AdamW's to a few per cent; what is trained stays in float32.
    """

    use: Literal["adamw-8bit"] = "adamw-8bit"
    version: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    extra: ClassVar[str | None] = "8bit"
    state_bytes: ClassVar[float] = 2.0 + 2 * 4 / 256
    """For each parameter: two moments of one byte, and their blocks' scales."""

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """Raises `MachineError` where bitsandbytes isn't installed, or has no kernels for the parameters' device."""
        require([self])
        held = list(parameters)
        here = {parameter.device.type for parameter in held} & _WITHOUT_8_BITS
        if here:
            raise MachineError(
                f"optimiser `{self.use}` can't work on {', '.join(sorted(here))}: bitsandbytes has no kernels for it",
                help="`--set train.optimiser=adafactor` needs less memory still, `train.optimiser=adamw` more",
            )
        # It warns of kernels for 4 bits, which smpo doesn't use.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        optim: Any = importlib.import_module("bitsandbytes.optim")
        rule: torch.optim.Optimizer = optim.AdamW8bit(
            held, lr=lr, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay, eps=self.eps
        )
        return rule


@register
class Adafactor(Optimiser):
    """Adafactor (Shazeer and Stern 2018) with a fixed learning rate, as the official SmPO code uses for SDXL.

    Its second moments are factored into rows and columns: about a third of AdamW's memory.
    """

    use: Literal["adafactor"] = "adafactor"
    version: ClassVar[int] = 1
    state_bytes: ClassVar[float] = 0.02
    """For each parameter: a row and a column of second moments for each matrix."""
    factored: ClassVar[bool] = True
    """Rows and columns are those of a tensor's last two sides: more for convolutions than `state_bytes`."""

    weight_decay: float = Field(0.01, ge=0)
    """Decoupled pull of the weights towards zero, times the learning rate."""
    clip_threshold: float = Field(1.0, gt=0)
    """Largest root mean square of an update, per tensor."""
    decay_rate: float = Field(-0.8, lt=0)
    """Exponent of the running average of squares."""

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        from transformers import Adafactor as Rule

        rule: torch.optim.Optimizer = Rule(
            list(parameters),
            lr=lr,
            weight_decay=self.weight_decay,
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay_rate,
            scale_parameter=False,
            relative_step=False,
            warmup_init=False,
        )
        return rule
