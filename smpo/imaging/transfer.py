"""Tensors between the CPU and a device, without a wait for the copy.

A copy from ordinary memory goes through a buffer of the driver and keeps the host waiting. From pinned memory it runs
beside the host's work; torch keeps pinned blocks, and gives one out again when its copy is done.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["stack_on", "to_cpu", "to_device"]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; on CUDA through pinned memory, and not waited for. On the CPU the tensor itself."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def stack_on(device: torch.device, tensors: Sequence[Tensor]) -> Tensor:
    """`[...]` CPU tensors of one shape and dtype -> `[N, ...]` on `device`; stacked in pinned memory for CUDA."""
    if device.type != "cuda":
        return torch.stack(list(tensors)).to(device)
    first = tensors[0]
    pinned = torch.empty((len(tensors), *first.shape), dtype=first.dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned).to(device, non_blocking=True)


def to_cpu(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the CPU, all copied at once and then waited for, once."""
    if tensors[0].device.type != "cuda":
        return [tensor.cpu() for tensor in tensors]
    found = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        for tensor in tensors
    ]
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return found
