"""How the same arithmetic is done faster: kernels, memory layout, compiled blocks, weights that are cast once.

Everything here changes rounding at most, and it changes it for policy and reference alike; the loss multiplies their
difference by thousands, so one that is compiled beside one that isn't would train on the difference of two compilers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from smpo.families.dtypes import frozen_copy
from smpo.families.operator_parity import contiguous_projections

__all__ = ["AS_TORCH_DOES", "CompiledBlocks", "HalfPrecisionCopy", "Speed"]

Attention = Literal["auto", "cudnn", "flash", "efficient", "math"]
RECOMPILE_LIMIT = 64
"""All ResNet blocks of a UNet share one code object and have some twenty shapes; torch gives up, silently, after 8."""


@dataclass(frozen=True)
class Speed:
    """`compile`: run inversions with compiled blocks (`CompiledBlocks`). `channels_last`: the layout of convolutions;
    pays where norms are compiled, since torch's own GroupNorm returns the other. `attention`: which kernel; `auto`
    leaves it to torch."""

    compile: bool = False
    channels_last: bool = False
    attention: Attention = "auto"

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self, network: nn.Module) -> nn.Module:
        """`network`, ready to run; its parameters keep their names."""
        contiguous_projections(network)
        if self.channels_last:
            # torch documents this call and leaves it out of the overloads of `Module.to`.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]
        return network

    def attending(self) -> Any:
        """To be entered for each pass."""
        if self.attention == "auto":
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        wanted = {
            "cudnn": SDPBackend.CUDNN_ATTENTION,
            "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "math": SDPBackend.MATH,
        }[self.attention]
        # Where the wanted kernel doesn't take a shape (cross-attention's 77 keys), the others may.
        rest = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        return sdpa_kernel([wanted, *(one for one in rest if one is not wanted)], set_priority=True)


AS_TORCH_DOES = Speed()


class HalfPrecisionCopy:
    """A copy of a trained network with its linear and convolution weights in 16 bits, for passes without gradients.

    Under autocast every pass casts every weight: 15 GB of traffic for SDXL, a dozen times a pair. The shadow's weights
    are the same numbers, rounded when the master weights have changed and not before. Two bytes a parameter.
    """

    def __init__(self, master: nn.Module, dtype: torch.dtype, speed: Speed = AS_TORCH_DOES) -> None:
        from diffusers.models.modeling_utils import ModelMixin

        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        network = frozen_copy(master, None, dtype)
        if isinstance(network, ModelMixin):
            network.disable_gradient_checkpointing()
        mine = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        theirs = {**dict(master.named_parameters()), **dict(master.named_buffers())}
        self._pairs = [(mine[name], theirs[name]) for name in mine]
        self._network = speed.prepare(network)
        self._seen, self._stepped = self._version(), False
        known = weakref.ref(self)

        def stepped(*_: object) -> None:
            if (shadow := known()) is not None:
                shadow._stepped = True

        weakref.finalize(self, register_optimizer_step_post_hook(stepped).remove)

    @property
    def network(self) -> nn.Module:
        """The copy, up to date."""
        version = self._version()
        if self._stepped or version != self._seen:
            with torch.no_grad():
                for mine, theirs in self._pairs:
                    mine.copy_(theirs)
            self._seen, self._stepped = version, False
        return self._network

    def _version(self) -> int:
        """Grows with every change in place, as averages and checkpoints make them; fused optimisers don't count theirs,
        which the hook on `step` is for."""
        return sum(theirs._version for _, theirs in self._pairs)


class CompiledBlocks:
    """Transformer and ResNet blocks of a network, each with a compiled twin of its `forward`.

    Block by block: compiling takes a fraction of the time of the whole network, for a percent of the gain. A compiled
    forward with gradients is fused, and so rounded, in another way than one without, so blocks are compiled while they
    are `in_use` alone, which passes with gradients and passes that are compared with these aren't.
    """

    def __init__(self, network: nn.Module) -> None:
        from diffusers.models.attention import BasicTransformerBlock
        from diffusers.models.resnet import ResnetBlock2D

        torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)
        self._twins = [
            (block, torch.compile(block.forward))
            for block in network.modules()
            if isinstance(block, BasicTransformerBlock | ResnetBlock2D)
        ]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the network runs its compiled blocks."""
        for block, compiled in self._twins:
            vars(block)["forward"] = compiled
        try:
            yield
        finally:
            for block, _ in self._twins:
                del vars(block)["forward"]
