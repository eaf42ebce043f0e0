"""The processes of a run share the work of filling caches (`smpo.data.cache.work_split`)."""

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


def work_split(accelerator: Any, liveness: Liveness | None) -> WorkSplit:
    """The processes on the main process's machine work, the others wait. Collective.

    Barriers are those of `liveness`, which end when a process has failed; a collective would wait for days."""
    if accelerator.num_processes == 1 or liveness is None:
        return SINGLE_PROCESS
    from accelerate.utils import broadcast, gather_object

    def broadcast_numbers(numbers: Tensor) -> Tensor:
        liveness.barrier()
        count = broadcast(torch.tensor([len(numbers)], device=accelerator.device))
        if not accelerator.is_main_process:
            numbers = torch.empty(int(count), dtype=torch.int64)
        received: Tensor = broadcast(numbers.to(accelerator.device)).cpu()
        return received

    machines = gather_object([_machine()])
    workers = [rank for rank, machine in enumerate(machines) if machine == machines[0]]
    rank = accelerator.process_index
    return WorkSplit(
        is_leader=rank == 0,
        share=workers.index(rank) if rank in workers else None,
        shares=len(workers),
        broadcast=broadcast_numbers,
        barrier=liveness.barrier,
        check=liveness.check,
    )


def _machine() -> str:
    """Containers may share a name, and virtual machines a boot id, but not both."""
    boot_id = ""
    with suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    return f"{socket.gethostname()} {boot_id}"
