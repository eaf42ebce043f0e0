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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smpo.families.eight_bit import EightBitShadow
from smpo.families.lora import adapter_off
from smpo.families.once import Once
from smpo.families.speed import AS_TORCH_DOES, Shadow, Speed
from smpo.kinds import Conditioning

__all__ = ["HALF", "Arithmetic", "Networks", "Precision"]

Precision = Literal["fp32", "bf16", "fp16"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """Where both networks run, and in which precision; `batch`: images a frozen network sees at once."""

    device: torch.device
    precision: Precision
    batch: int

    def autocast(self) -> torch.autocast:
        """To be entered for each pass: autocast remembers its casts of weights, and those that were made without
        gradients must not be met by a pass with them."""
        half = HALF.get(self.precision, torch.bfloat16)
        return torch.autocast(self.device.type, dtype=half, enabled=self.precision != "fp32")


class Networks:
    """The trained network itself (`trained`, never wrapped), and whoever stands in for the original.

    With an adapter the original is the same network with the adapter off (`shared`). Without one it is a second,
    frozen network: held, or brought by `fetch` when somebody asks for it after all. `offload` keeps it in the CPU's
    memory, from where it is moved to the device for each of its passes. `shadow` keeps a 16-bit copy of a policy that
    is trained whole, for its passes without gradients; `eight_bit` a copy of whoever is asked so.
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
        eight_bit: bool = False,
    ) -> None:
        self.trained = trained
        self.speed = speed
        self.arithmetic = arithmetic
        self.shared = reference is None and fetch is None
        self._fetch, self._offload = fetch, offload
        half = HALF.get(arithmetic.precision)
        self._shadow = Shadow(trained, half, speed) if shadow and half and not self.shared else None
        self._eight_bit: dict[bool, EightBitShadow] | None = {} if eight_bit else None
        speed.prepare(trained)
        self._reference = None if reference is None else speed.prepare(reference).to(self._resting)
        self._once: dict[int, Once] = {}
        self._dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in trained.modules())

    @property
    def reference(self) -> nn.Module | None:
        """The second network, where there is one by now."""
        return self._reference

    @property
    def _resting(self) -> torch.device:
        return torch.device("cpu") if self._offload else self.arithmetic.device

    def once(
        self, network: nn.Module, cond: Conditioning, *, reference: bool
    ) -> AbstractContextManager[None]:
        """Round a pass without gradients: what needn't be computed again for `cond`'s window isn't."""
        speed = self.speed
        if speed.compile or not (speed.prompts_once or speed.fused_qkv):
            return nullcontext()
        if id(network) not in self._once:
            self._once[id(network)] = Once(network, prompts=speed.prompts_once, fused=speed.fused_qkv)
        return self._once[id(network)].during(cond, reference=reference)

    def ask(self, network: nn.Module, x: Tensor, t: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """One pass in the common arithmetic: at least float32 `[N, C, H, W]`.

        Contiguous: torch may choose other kernels for other strides, and a dropout of zero, which only the network
        that is being trained has on, changes them half way.
        """
        x = x.contiguous(memory_format=self.speed.layout)
        with self.arithmetic.autocast(), self.speed.attending():
            output: Tensor = network(x, t, **inputs, return_dict=False)[0]
        return output.to(torch.promote_types(output.dtype, torch.float32))

    @contextmanager
    def still(self, *, reference: bool, eight_bit: bool = False) -> Iterator[nn.Module]:
        """The bare policy or reference network on the device, without dropout; afterwards everything as it was.
        `eight_bit`: its copy in 8 bits, for networks that were made with one."""
        if eight_bit and self._eight_bit is not None:
            with self._rough(reference) as network:
                yield network
            return
        if reference and not self.shared:
            if self._reference is None:
                assert self._fetch is not None
                self._reference = self.speed.prepare(self._fetch()).to(self._resting)
            try:
                yield self._reference.to(self.arithmetic.device)
            finally:
                self._reference.to(self._resting)
            return
        if self._shadow is not None:
            yield self._shadow.network
            return
        training = self.trained.training and self._dropout
        if training:
            self.trained.eval()
        try:
            if reference:
                with adapter_off(self.trained):
                    yield self.trained
            else:
                yield self.trained
        finally:
            if training:
                self.trained.train()

    @contextmanager
    def _rough(self, reference: bool) -> Iterator[nn.Module]:
        assert self._eight_bit is not None
        own = reference and not self.shared
        if own not in self._eight_bit:
            dtype = HALF.get(self.arithmetic.precision, torch.float32)
            if own:
                with self.still(reference=True) as network:
                    self._eight_bit[own] = EightBitShadow(network, dtype, self.speed)
            else:
                self._eight_bit[own] = EightBitShadow(self.trained, dtype, self.speed)
        network = self._eight_bit[own].network
        with adapter_off(network) if reference and self.shared else nullcontext():
            yield network
