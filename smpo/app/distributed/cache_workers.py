"""The processes of a run as a team that fills caches (`smpo.data.cache.work_split`)."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit

if TYPE_CHECKING:
    from smpo.app.distributed.liveness import Liveness

__all__ = ["work_split"]


def work_split(accelerator: Any, call: Liveness | None) -> WorkSplit:
    """Those on the main process's machine work, the others wait. Collective.

    They meet in the roll call, which knows who has failed and says why: in a collective they would wait."""
    if accelerator.num_processes == 1 or call is None:
        return SINGLE_PROCESS
    meet = call.barrier
    from accelerate.utils import broadcast, gather_object

    def told(numbers: Tensor) -> Tensor:
        meet()
        count = broadcast(torch.tensor([len(numbers)], device=accelerator.device))
        if not accelerator.is_main_process:
            numbers = torch.empty(int(count), dtype=torch.int64)
        found: Tensor = broadcast(numbers.to(accelerator.device)).cpu()
        return found

    machines = gather_object([_machine()])
    workers = [rank for rank, machine in enumerate(machines) if machine == machines[0]]
    rank = accelerator.process_index
    return WorkSplit(
        is_leader=rank == 0,
        share=workers.index(rank) if rank in workers else None,
        shares=len(workers),
        broadcast=told,
        barrier=meet,
        check=call.check,
    )


def _machine() -> str:
    """Containers may share a name, and virtual machines a kernel's number, but not both."""
    booted = ""
    with suppress(OSError):
        booted = Path("/proc/sys/kernel/random/boot_id").read_text()
    return f"{socket.gethostname()} {booted}"
