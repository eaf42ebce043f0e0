"""Kernels of no particular processor: every sum is rounded by another amount for another shape of its operands.

    pytest -p tests.rounding tests/engine       # part of `nox -s machines`

MKL, oneDNN and ATen add the terms of a product in an order of their own for each instruction set, thread count and
batch size. This plug-in has every order that there may be on its side: it adds normal noise of the size of rounding
to each result, the same noise wherever an operator gets operands of the same shapes. So a test passes under it if it
compares equal shapes bit for bit and others to a tolerance that follows from float32, and fails if its tolerance fits
one processor.

The size, u being 2^-24 in float32 and 2^-53 in float64: a product's terms, added one by one with signs at random,
have a partial sum of about sqrt(k) terms after k of them, and each addition rounds that by up to u. Over K terms this
comes to about half of u |a| |b| (a row of the one operand, a column of the other), which is more than blocked sums
have, and far less than the bound K u sum|a b|. Reductions are trees in ATen: u log2 K of the result. One process, one
thread; what a test starts besides is not reached.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Otherwise"]

PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Name -> place of the first factor."""
CONVOLUTIONS = ("convolution", "_convolution", "mkldnn_convolution", "convolution_backward")
REDUCTIONS = (
    "sum", "mean", "linalg_vector_norm", "native_layer_norm", "native_group_norm", "native_layer_norm_backward",
    "native_group_norm_backward", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)  # fmt: skip
FEW = 32
"""Terms of a reduction that is left alone: few numbers are often exact in any order, such as flags that are counted."""


class Otherwise(TorchDispatchMode):
    """Within the block the sums of torch's operators on a CPU are rounded in another order."""

    def __init__(self) -> None:
        super().__init__()
        self._noise: dict[tuple[Any, ...], Tensor] = {}
        self.rounded = 0
        """Results so far."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS or name in CONVOLUTIONS or name in REDUCTIONS:
            given = [one for one in args if isinstance(one, Tensor)]
            shapes = tuple(tuple(one.shape) for one in given)
            for place, one in enumerate(out if isinstance(out, tuple) else (out,)):
                if isinstance(one, Tensor) and one.numel() and _is_exact(one):
                    one.add_(self._drawn(one, (name, place, shapes)) * _size(name, one, args, given))
                    self.rounded += 1
        return out

    def _drawn(self, one: Tensor, key: tuple[Any, ...]) -> Tensor:
        """Standard normal, within 3, a function of the operator and of its operands' shapes."""
        key = (*key, tuple(one.shape), one.dtype)
        if key not in self._noise:
            generator = torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
            self._noise[key] = torch.randn(one.shape, generator=generator, dtype=one.dtype).clamp_(-3, 3)
        return self._noise[key]


def _is_exact(one: Tensor) -> bool:
    """In 16 bits the last rounding is larger than that of the sums."""
    return one.device.type == "cpu" and one.dtype in (torch.float32, torch.float64)


def _size(name: str, out: Tensor, args: tuple[Any, ...], given: list[Tensor]) -> Tensor:
    """How large the rounding of a result is; broadcasts against it."""
    unit = torch.finfo(out.dtype).eps / 2
    if name in PRODUCTS:
        a, b = args[PRODUCTS[name] : PRODUCTS[name] + 2]
        found = a.norm(dim=-1, keepdim=True) * b.norm(dim=-2, keepdim=True)
        return torch.where(found.isfinite(), unit / 2 * found, 0)
    terms = max(one.numel() for one in given) / out.numel()
    share = math.log2(max(terms, FEW)) if terms > FEW or not name.startswith(("sum", "mean", "linalg")) else 0.0
    if name in CONVOLUTIONS:
        taps = given[1].numel() // given[1].shape[0]
        share = math.sqrt(max(terms, taps)) / 2
    size = out.square().mean().sqrt()
    return torch.where(size.isfinite(), unit * share * size, 0)  # a number that isn't finite stays alone


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with Otherwise():
        yield
