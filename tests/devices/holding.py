"""What a process holds in the middle of an update, in bytes a parameter; prints JSON. To be started by torchrun.

Storages are counted at the size they have just then, since FSDP empties those it can fill again.
"""

from __future__ import annotations

import json
import sys
import time
import weakref
from contextlib import nullcontext

import torch
from torch import distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smpo.app.run.ranks import shutdown_process_group
from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.sharding import gather, local_shard, no_grad_sync, shard


class Network(nn.Module):
    """Blocks and a head, as denoisers have them, with next to no activations."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(128, 128) for _ in range(16))
        self.head = nn.Linear(128, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)


class Unmet:
    """An accelerator as far as `apart` needs one."""

    def no_sync(self, network: nn.Module):
        return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()


class Held(TorchDispatchMode):
    """Every storage that an operation returned, for as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = local_shard(leaf).untyped_storage()  # that of a dealt tensor itself is a pretence
                self.storages[storage._cdata] = weakref.ref(storage)
        return out

    @property
    def bytes(self) -> int:
        return sum(one.nbytes() for ref in self.storages.values() if (one := ref()) is not None)


def held(how: str, *, average: bool, adapter: bool) -> dict[str, float]:
    """The most that is held when a micro-batch of the second or third update is done."""
    with Held() as everything:
        return _trained(everything, how, average=average, adapter=adapter)


def _trained(everything: Held, how: str, *, average: bool, adapter: bool) -> dict[str, float]:
    network: nn.Module = Network()
    if adapter:  # the first blocks are frozen
        for block in network.blocks[:8]:
            block.requires_grad_(False)
    total = sum(p.numel() for p in network.parameters())
    if how == "fsdp":
        shard(network, "cpu", distributed.get_world_size())
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(trained.values())
    shadow = ExponentialMovingAverage(trained, 0.9) if average else None
    if how == "fsdp":
        optimiser.register_step_post_hook(lambda *_: gather(network))
        gather(network)
    elif how == "ddp":
        network = nn.parallel.DistributedDataParallel(network)
    most = 0
    for update in range(3):
        for micro in range(3):
            with no_grad_sync(Unmet(), network) if micro < 2 else nullcontext():
                network(torch.randn(2, 128)).square().sum().backward()
            if update:
                time.sleep(0.01)  # gloo's threads wait for Python to let go of the last block that they sent
                most = max(most, everything.bytes)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if shadow is not None:
            shadow.update(update)
    return {"bytes": most, "parameters": total, "trained": sum(p.numel() for p in trained.values())}


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    found = {json.dumps(case): held(**case) for case in json.loads(sys.argv[1])}
    if distributed.get_rank() == 0:
        print(json.dumps(found))
    shutdown_process_group()
