"""Clocks and counters, and arms that are timed in turn."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from speed.card import card


def seconds(device: torch.device) -> float:
    """Of this process' CPU time, so that other work on the machine doesn't count; on a GPU of the wall, when it is
    done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Phases:
    """Seconds by phase. What a block inside a block takes is that one's, not this one's."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._inner = device, [0.0]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = seconds(self._device)
        self._inner.append(0.0)
        yield
        taken = seconds(self._device) - began
        self.seconds[name] = self.seconds.get(name, 0.0) + taken - self._inner.pop()
        self._inner[-1] += taken


@contextmanager
def unwatched(_name: str) -> Iterator[None]:
    """No phases: for the runs that are timed whole."""
    yield


class Launches(TorchDispatchMode):
    """Counts operations that start work on a device: everything but views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.count += 1
        return out


class Arm(Protocol):
    """A way to train. `update` runs one update and returns its number of losses; `applied` holds for the time in which
    it does: what the arm changes about the networks, which all arms share, is undone afterwards."""

    def update(self, phase: Any, /) -> int: ...

    def applied(self) -> AbstractContextManager[None]: ...


def counted(update: Callable[[Any], int]) -> dict[str, float]:
    """FLOPs and launches of one update, for each of its losses."""
    with Launches() as launches, FlopCounterMode(display=False) as flops:
        samples = update(unwatched)
    return {"tflop": flops.get_total_flops() / samples / 1e12, "launches": launches.count / samples}


def interleaved(
    arms: dict[str, Arm],
    device: torch.device,
    repeats: int,
    measured: Callable[[dict[str, dict[str, Any]]], None] = lambda _: None,
) -> dict[str, dict[str, Any]]:
    """A B C A B C ...: what changes on the machine meanwhile meets all arms alike. Seconds per loss, by arm; `measured`
    is called with the results so far after each round."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    peaks: dict[str, float | None] = {}
    results: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name, arm in arms.items():
            with arm.applied():
                taken, peaks[name] = timed(arm.update, device)
            times[name].append(taken)
        results = {
            name: {
                "seconds": median(found), "spread": [min(found), max(found)], "repeats": len(found),
                "peak_gb": peaks[name],
            }
            for name, found in times.items()
        }  # fmt: skip
        measured(results)
    return results


def timed(update: Callable[[Any], int], device: torch.device) -> tuple[float, float | None]:
    """Seconds a loss of one update, and the most memory that was allocated, in GB (10^9 bytes; None on a CPU)."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = seconds(device)
    samples = update(unwatched)
    taken = (seconds(device) - began) / samples
    return taken, torch.cuda.max_memory_allocated() / 1e9 if cuda else None


def machine(device: torch.device) -> dict[str, Any]:
    """What kind of machine this was, and the versions."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        kind = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread"
    return {
        "device": kind,
        "python": platform.python_version(),
        **({"card": card(device)} if device.type == "cuda" else {}),
        **{name: metadata.version(name) for name in ("torch", "diffusers", "transformers")},
    }
