"""Two networks that must not differ in anything but their weights: the policy, and the frozen original.

A preference loss looks at the *difference* between the two and multiplies it by thousands. So both run through the
same kernels in the same precision, with the numbers of the weights rounded alike; then equal weights give equal
outputs, and training starts at exactly ln 2. The official code runs one in fp16 and one under autocast, and starts
from noise instead (method 2b, D22).

**16-bit arithmetic.** What is trained stays in float32, as the master copy: at the paper's settings an update is a
thousandth of a weight or less, and half a unit in the last place of bfloat16 is four thousandths, so that pure
16-bit weights would stand still. Linear layers and convolutions compute in 16 bits, on the master weights rounded at
each pass (autocast); norms compute in float32. Frozen weights are stored as that rounding leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smpo.families.lora import adapter_off
from smpo.families.offload import BlockOffload
from smpo.families.operator_parity import dropout_modules, keeping_nothing, some_attention_is_frozen, without_dropout
from smpo.families.speed import AS_TORCH_DOES, CompiledBlocks, HalfPrecisionCopy, Speed

__all__ = ["HALF", "Arithmetic", "PolicyAndReference", "Precision"]

Precision = Literal["fp32", "bf16", "fp16"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """Where both networks run, and in which precision; `batch`: images a frozen network sees at once."""

    device: torch.device
    precision: Precision
    batch: int

    def autocast(self) -> torch.autocast:
        """To be entered for each pass: autocast caches its casts of weights, and a pass with gradients must not use
        those of one without."""
        half = HALF.get(self.precision, torch.bfloat16)
        return torch.autocast(self.device.type, dtype=half, enabled=self.precision != "fp32")


class PolicyAndReference:
    """The trained network itself (`trained`, never wrapped), and the reference.

    With an adapter the original is the same network with the adapter off (`shared`). Without one it is a second,
    frozen network: held, or loaded by `fetch` at its first use. `offload` keeps it in the host's
    memory, from where its blocks are copied to the device while it computes (`BlockOffload`). `shadow` keeps a 16-bit
    copy of a policy that is trained whole, for its passes without gradients.
    """

    def __init__(
        self,
        trained: nn.Module,
        reference: nn.Module | None,
        *,
        arithmetic: Arithmetic,
        fetch: Callable[[], nn.Module] | None = None,
        offload: bool = False,
        speed: Speed = AS_TORCH_DOES,
        shadow: bool = False,
    ) -> None:
        self.trained = trained
        self.speed = speed
        self.arithmetic = arithmetic
        self.shared = reference is None and fetch is None
        self._fetch, self._offload = fetch, offload
        half = HALF.get(arithmetic.precision)
        self._shadow = HalfPrecisionCopy(trained, half, speed) if shadow and half and not self.shared else None
        speed.prepare(trained)
        self.input_gradients = some_attention_is_frozen(trained)
        """Whether the policy's input has to require gradients, so that its attention runs as the reference's does."""
        self._reference = None if reference is None else self._placed(speed.prepare(reference))
        self._compiled: dict[int, CompiledBlocks] = {}
        self._dropout = dropout_modules(trained.eval())
        for module in self._dropout:
            module.training = True

    @property
    def reference(self) -> nn.Module | None:
        """The second network, where there is one by now."""
        return self._reference

    def _placed(self, reference: nn.Module) -> nn.Module:
        if self._offload and self.arithmetic.device.type != "cpu":
            BlockOffload(reference, self.arithmetic.device)
            return reference
        return reference.to(self.arithmetic.device)

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """One pass in the common arithmetic: at least float32 `[N, C, H, W]`.

        Contiguous: torch may choose other kernels for other strides.
        """
        x = x.contiguous(memory_format=self.speed.layout)
        with self.arithmetic.autocast(), self.speed.attending():
            output: Tensor = network(x, t, **inputs, return_dict=False)[0]
        return output.to(torch.promote_types(output.dtype, torch.float32))

    @contextmanager
    def compared(self, *, reference: bool) -> Iterator[nn.Module]:
        """The policy or reference for a pass without gradients whose output is compared with another: it runs the
        operators of a pass with gradients, and its output has to be detached."""
        with self.eval_network(reference=reference) as network, keeping_nothing():
            yield network

    @contextmanager
    def inverting(self, *, reference: bool) -> Iterator[nn.Module]:
        """The policy or reference for a pass of an inversion, which is compared with no other: without autograd, and
        with compiled blocks where they are wanted."""
        with self.eval_network(reference=reference) as network, torch.no_grad():
            if not self.speed.compile:
                yield network
                return
            if id(network) not in self._compiled:
                self._compiled[id(network)] = CompiledBlocks(network)
            with self._compiled[id(network)].in_use():
                yield network

    @contextmanager
    def eval_network(self, *, reference: bool) -> Iterator[nn.Module]:
        """The bare policy or reference network on the device, without dropout; afterwards everything as it was."""
        if reference and not self.shared:
            if self._reference is None:
                assert self._fetch is not None
                self._reference = self._placed(self.speed.prepare(self._fetch()))
            yield self._reference
            return
        if self._shadow is not None:
            yield self._shadow.network
            return
        with without_dropout(self._dropout), adapter_off(self.trained) if reference else nullcontext():
            yield self.trained
