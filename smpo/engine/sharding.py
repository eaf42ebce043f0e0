"""FSDP2 (`torch.distributed.fsdp.fully_shard`) for policies that don't fit beside their optimiser.

Each of N processes keeps an N-th of the master weights, of their gradients after the sum, of the optimiser's state and
of the moving average. Of a parameter's bytes 8 stay whole during an update (the gathered weights and the gradients of
the micro-batches so far), with 12 / N beside them with AdamW (16 / N with an average); DDP has 20 (24), 4 of them its
buckets.

Weights are gathered once an update, after the optimiser's step, and not for each pass, as FSDP does by itself: an
inversion takes as many passes as its pair needs, so processes would wait for each other's layers, and for ever where
one has a pass more. For the same reason the frozen reference isn't sharded: 16 bits a weight, or
`runtime.offload_reference`, are the cheaper way. Between updates every process holds whole weights, so the main one can
draw previews and look at held-out pairs alone, and all evaluate together.

torch is used directly: accelerate's plugin leaves CPU processes on plain DDP without a word (accelerate 1.15), and then
none of this could be tested without a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["distribute_like", "full_tensor", "gather", "is_sharded", "local_shard", "no_grad_sync", "shard"]


def shard(network: nn.Module, device: str, processes: int) -> None:
    """Deal the trained parameters out, block by block, in place. What is frozen stays whole. Collective; to be called
    before an optimiser is built, as parameters become others."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    # Its hook gathers weights for the backward pass, which are there already.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device, (processes,))
    frozen = {p for p in network.parameters() if not p.requires_grad}
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    inner = {child for one in lists for block in one for child in block.modules() if child is not block}
    for block in [block for one in lists for block in one if block not in inner]:
        if any(p.requires_grad for p in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    fully_shard(network, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    cast(FSDPModule, network).set_reshard_after_backward(False)


def is_sharded(network: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(network, FSDPModule)


def gather(network: nn.Module) -> None:
    """Whole weights on every process, as they are now. Collective; to be called when parameters were changed."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.unshard()


def no_grad_sync(accelerator: Any, network: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients stay where they are: other processes aren't met."""
    if is_sharded(network):
        return _apart(network)
    context: AbstractContextManager[None] = accelerator.no_sync(network)
    return context


@contextmanager
def _apart(network: Any) -> Iterator[None]:
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process may hold a part. Collective for those."""
    full: Tensor = tensor.full_tensor() if _dealt(tensor) else tensor
    return full


def local_shard(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    local: Tensor = tensor.to_local() if _dealt(tensor) else tensor
    return local


def distribute_like(target: Tensor, value: Tensor) -> Tensor:
    """The whole `value` as `target` is dealt out, on its device. Not collective: each process takes its own part."""
    if not _dealt(target) or value.shape != target.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    there = value.to(local_shard(target).device)
    return distribute_tensor(there, target.device_mesh, target.placements, src_data_rank=None)


def _dealt(tensor: Tensor) -> TypeGuard[DTensor]:
    return hasattr(tensor, "device_mesh")
