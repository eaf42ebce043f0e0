"""The device, the threads and the processes of a spec on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from smpo.app.build.allocator import check_allocator, prefer_expandable_segments
from smpo.app.distributed.liveness import init_process_group_after_restart
from smpo.errors import MachineError
from smpo.experiment import ExperimentSpec
from smpo.kinds import Runtime

__all__ = ["accelerator_of", "live_runtime"]

_MEET = timedelta(minutes=5)
"""For processes to find each other."""
_MOST_WORKERS = 16
"""More threads of one interpreter get in each other's way."""
_WAIT = timedelta(days=2)
"""For collectives: the main process may score and encode for hours before the others are wanted."""


def live_runtime(spec: ExperimentSpec) -> Runtime:
    """Choose the device and set the threads. Raises `MachineError` for a device that isn't here."""
    wanted = spec.runtime.device
    if spec.runtime.threads is not None:
        torch.set_num_threads(spec.runtime.threads)
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = next(name for name in ("cuda", "mps", "cpu") if here[name]) if wanted == "auto" else wanted
    if not here[device]:
        raise MachineError(
            f"`runtime.device` asks for {device}, which torch {torch.__version__} doesn't find here",
            help="`--set runtime.device=auto` takes what there is",
        )
    if spec.train.precision == "fp16" and device == "cpu":
        raise MachineError("fp16 needs a GPU: the CPU has no loss scaling", help="`--set train.precision=fp32`")
    if device == "cuda":
        prefer_expandable_segments()
    if device == "cuda" and os.environ.get("WORLD_SIZE", "1") == "1":  # else `accelerator_of` chooses the GPU first
        check_allocator()
    return Runtime(
        device=device,
        precision=spec.train.precision,
        cache=Path(spec.runtime.cache),
        batch=spec.runtime.encode_batch,
        workers=_workers(spec),
        gradient_checkpointing=spec.runtime.gradient_checkpointing,
        reference=spec.needs_reference,
        offload_reference=spec.runtime.offload_reference,
        vae_slicing=spec.runtime.vae_slicing,
        vae_tiling=spec.runtime.vae_tiling,
        compile=spec.runtime.compile,
        channels_last=spec.runtime.channels_last,
        attention=spec.runtime.attention,
        shadow_weights=spec.runtime.shadow_weights,
    )


def _workers(spec: ExperimentSpec) -> int:
    """Threads for pictures: `runtime.workers`, or an equal share of the CPUs that this machine lets the run use."""
    if spec.runtime.workers is not None:
        return spec.runtime.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", spec.runtime.devices))
    return max(1, min(_MOST_WORKERS, _cpus() // max(1, here)))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator_of(runtime: Runtime, say: Callable[[str], None] = lambda text: None) -> Any:
    """Processes and their gradients. Precision is the model's own business, since policy and reference must agree."""
    from accelerate import Accelerator, InitProcessGroupKwargs

    init_process_group_after_restart(cpu=runtime.device == "cpu", patience=_MEET)
    accelerator = Accelerator(
        cpu=runtime.device == "cpu",
        mixed_precision="no",
        # All processes have reached a barrier: one that can't connect now never will, and the launcher restarts them.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_MEET)],
    )
    if accelerator.num_processes > 1:
        from torch.distributed.distributed_c10d import _set_pg_timeout

        _set_pg_timeout(_WAIT)  # torch has no public way to set a timeout after the first connection
    if runtime.device == "cuda":
        check_allocator(say)
    return accelerator
