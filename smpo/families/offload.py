"""A frozen network in the host's memory, copied to the device block by block while it computes.

Blocks are ResNet and transformer blocks; they hold nearly all weights of a UNet. Each lies in pinned host memory as one
piece. The device has two slots of the largest block's size: while a block computes in one, a stream of its own copies
the next block into the other, so that the bus works beside the kernels. The few weights outside blocks stay on the
device. A pass does the same operations on the same numbers as with all weights on the device.

The order of blocks is that of the pass before; a block that was not foreseen is copied when it is needed. (Another way
is diffusers' `apply_group_offloading`. Its groups are a UNet's whole down and up blocks, of which two neighbours hold
more than half of SDXL, or single layers; with either the host waits for the copies at each group.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from smpo.errors import MachineError

__all__ = ["BlockOffload", "blocks_of", "resident_bytes"]

ALIGNED = 512
"""Bytes: torch's allocator aligns tensors so, and kernels are chosen by alignment."""
CHUNK = 2**30
"""Most bytes of pinned memory in one request. torch rounds each up to a power of two."""


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Transformer and ResNet blocks of a diffusers network, none inside another."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return [one for one in network.modules() if isinstance(one, BasicTransformerBlock | ResnetBlock2D)]


def resident_bytes(network: nn.Module) -> int:
    """Bytes on the device of a network that is offloaded: weights outside blocks, and two slots."""
    blocks = [list(block.parameters()) for block in blocks_of(network)]
    inside = {id(tensor) for block in blocks for tensor in block}
    outside = sum(one.nbytes for one in network.parameters() if id(one) not in inside)
    return outside + 2 * max(map(_bytes, blocks), default=0)


class BlockOffload:
    """Makes a frozen network keep its blocks in host memory and compute on `device`. Its modules and parameters keep
    their names; hooks of the blocks move the weights. Where `device` is no CUDA device, copies aren't overlapped.

    Raises `MachineError` where so much host memory can't be pinned.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        cuda = device.type == "cuda"
        blocks = blocks_of(network)
        inside = {id(tensor) for block in blocks for tensor in block.parameters()}
        for tensor in (*network.parameters(), *network.buffers()):
            if id(tensor) not in inside:
                tensor.data = tensor.data.to(device)
        hosts = _pinned([_bytes(list(block.parameters())) for block in blocks], pin=cuda)
        size = max(map(len, hosts), default=0)
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._slots = [_Slot(torch.empty(size, dtype=torch.uint8, device=device), cuda) for _ in range(2)]
        self._busy = 1
        """The slot of the block that computes, or did last."""
        self._last: _Block | None = None
        for block, host in zip(blocks, hosts, strict=True):
            held = _Block(block, host, [slot.memory for slot in self._slots])
            block.register_forward_pre_hook(lambda *_, held=held: self._before(held))
            block.register_forward_hook(lambda *_, held=held: self._after(held))
        if self._stream is not None:
            for slot in self._slots:  # a network may go while its next block is on the way
                slot.memory.record_stream(self._stream)

    def _before(self, block: _Block) -> None:
        if self._last is not None:
            self._last.following = block
        self._last = block
        if block.slot is None:
            self._copy(block, self._free())
        assert block.slot is not None
        slot = self._slots[block.slot]
        if slot.copied is not None:
            torch.cuda.current_stream().wait_event(slot.copied)
        self._busy = block.slot
        following = block.following
        if following is not None and following.slot is None:
            self._copy(following, self._free())

    def _free(self) -> int:
        return 1 - self._busy

    def _after(self, block: _Block) -> None:
        assert block.slot is not None
        slot = self._slots[block.slot]
        if slot.used is not None:
            slot.used.record()

    def _copy(self, block: _Block, number: int) -> None:
        slot = self._slots[number]
        if slot.block is not None:
            slot.block.put(None)
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if self._stream is not None and slot.used is not None:
                self._stream.wait_event(slot.used)
            slot.memory[: len(block.host)].copy_(block.host, non_blocking=True)
            if slot.copied is not None:
                slot.copied.record()
        slot.block = block
        block.put(number)


class _Slot:
    """Room for one block on the device: when it was filled, and when its weights were last used."""

    def __init__(self, memory: Tensor, cuda: bool) -> None:
        self.memory = memory
        self.block: _Block | None = None
        self.copied = torch.cuda.Event() if cuda else None
        self.used = torch.cuda.Event() if cuda else None


class _Block:
    """A block's parameters, as views of its host memory and of each slot."""

    def __init__(self, module: nn.Module, host: Tensor, slots: list[Tensor]) -> None:
        self.host = host
        self.slot: int | None = None
        self.following: _Block | None = None
        """The block that came next in the pass before."""
        self._parameters = list(module.parameters())
        self._at_rest = list(_views(self._parameters, host))
        for parameter, view in zip(self._parameters, self._at_rest, strict=True):
            view.copy_(parameter.data)
        self._in_slot = [list(_views(self._parameters, memory)) for memory in slots]
        self.put(None)

    def put(self, slot: int | None) -> None:
        """Let the parameters be those in a slot; None: those on the host."""
        views = self._at_rest if slot is None else self._in_slot[slot]
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.data = view
        self.slot = slot


def _views(parameters: list[nn.Parameter], memory: Tensor) -> Iterator[Tensor]:
    """The parameters one behind the other in `memory`, in their own layout."""
    at = 0
    for one in parameters:
        piece = memory[at : at + one.nbytes].view(one.dtype)
        yield piece.as_strided(one.shape, one.stride())
        at += -(-one.nbytes // ALIGNED) * ALIGNED


def _bytes(parameters: list[Any]) -> int:
    return sum(-(-one.nbytes // ALIGNED) * ALIGNED for one in parameters)


def _pinned(sizes: list[int], *, pin: bool) -> list[Tensor]:
    """Host memory for each block, cut from few requests."""
    groups: list[list[int]] = []
    for size in sizes:
        if not groups or sum(groups[-1]) + size > CHUNK:
            groups.append([])
        groups[-1].append(size)
    try:
        chunks = [torch.empty(sum(group), dtype=torch.uint8, pin_memory=pin) for group in groups]
    except RuntimeError as error:
        raise MachineError(
            f"{sum(sizes) / 1e9:.3g} GB of host memory can't be pinned for the reference: {str(error).splitlines()[0]}",
            help="`--set runtime.offload_reference=false` keeps the reference on the device",
        ) from error
    return [piece for chunk, group in zip(chunks, groups, strict=True) for piece in chunk.split(group)]
