"""Where each tensor of a network lies and in which precision, and how it gets there from a file.

Weights come out of `safetensors` as views of the mapped file, which all processes of a machine share and which take no
memory of their own. From there each tensor goes by itself to its device and its precision, so that a process holds what
it needs and one tensor more, and never a second network in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["frozen_copy", "move", "store_in_half"]

_HALVED = (nn.Linear, nn.Conv2d)
"""Layers whose weights autocast casts at each pass. Norms stay in float32: autocast doesn't round their weights."""


def store_in_half(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen linear and convolution weights as autocast would cast them at every pass.

    The numbers that reach the kernels are the same, so equal weights still give equal outputs; half of the memory
    and all of the casting is saved.
    """
    for module in network.modules():
        frozen = not any(p.requires_grad for p in module.parameters())
        if isinstance(module, _HALVED) and frozen:
            module.to(dtype)


def move(
    network: nn.Module,
    device: torch.device | None,
    half: torch.dtype | None = None,
    *,
    wide: Callable[[str], bool] = lambda name: False,
) -> None:
    """Move a network to `device` (None: where it is) in place, tensor by tensor. Floating-point tensors become float32;
    with `half`, linear and convolution layers become `half`, but for those by whose name `wide` returns True."""
    for name, module in network.named_modules():
        dtype = half if half is not None and isinstance(module, _HALVED) and not wide(name) else torch.float32
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensor.data = _converted(tensor.data, device, dtype)


def frozen_copy(network: nn.Module, device: torch.device | None, half: torch.dtype | None) -> nn.Module:
    """A second network with the same weights, in evaluation mode and without gradients, on `device` (None: where
    `network` is). Tensors are in float32, linear and convolution layers in `half` where that is given."""
    held = [*network.parameters(), *network.buffers()]
    twin = copy.deepcopy(network, {id(tensor): tensor for tensor in held})  # modules; the tensors follow
    own: dict[int, Tensor] = {}

    def mine(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if id(tensor) not in own:  # a tensor may belong to several modules
            found = _converted(tensor.detach(), device, dtype)
            found = found.clone() if found.data_ptr() == tensor.data_ptr() else found
            own[id(tensor)] = nn.Parameter(found, requires_grad=False) if isinstance(tensor, nn.Parameter) else found
        return own[id(tensor)]

    for module in twin.modules():
        dtype = half if half is not None and isinstance(module, _HALVED) else torch.float32
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for kept in tables:
            for name, tensor in kept.items():
                kept[name] = None if tensor is None else mine(tensor, dtype)
    return twin.eval()


def _converted(tensor: Tensor, device: torch.device | None, dtype: torch.dtype) -> Tensor:
    """First to the device: a cast on the way would be done by the host, and send float32 over the bus."""
    there = tensor.to(device) if device is not None else tensor
    return there.to(dtype) if there.is_floating_point() else there
