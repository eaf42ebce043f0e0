"""Joules, where the device counts them: NVIDIA's counter of the GPU in use, and the processor's own (RAPL).

Counters count everything that the device does, other people's work included, and RAPL's start again from zero every
half an hour or so: `tick` must be called more often than that. Where nothing can be read (no counter, no right to read
it, no `pynvml`), nothing is reported. RAPL needs read access to /sys/class/powercap, which many systems keep for root.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["EnergyMeter"]

POWERCAP = Path("/sys/class/powercap")
Counter = tuple[Callable[[], float], float]
"""`(joules since whenever, joules after which it starts again; 0 if it never does)`."""


class EnergyMeter:
    """Adds up what counters have risen by since it was made. `joules`: device (`gpu`, `cpu`) -> joules."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        counters = [("cpu", one) for one in _packages(powercap)] + [("gpu", one) for one in _gpu()]
        self._counters: list[list[Any]] = []
        self.joules: dict[str, float] = {}
        for device, (read, wraps) in counters:
            with suppress(OSError, ValueError):
                self._counters.append([device, read, wraps, read()])
                self.joules[device] = 0.0

    def tick(self) -> None:
        """Read the counters. One that can't be read any more is dropped."""
        for counter in list(self._counters):
            device, read, wraps, before = counter
            try:
                now = read()
            except (OSError, ValueError):
                self._counters.remove(counter)
                continue
            self.joules[device] += now - before if now >= before else now - before + wraps
            counter[3] = now


def _packages(powercap: Path) -> list[Counter]:
    """A counter a processor package; their parts (cores, memory controllers) are in them."""
    found: list[Counter] = []
    with suppress(OSError, ValueError):
        for zone in sorted(powercap.glob("*-rapl:*")):
            if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                wraps = float((zone / "max_energy_range_uj").read_text()) / 1e6
                found.append((lambda file=zone / "energy_uj": float(file.read_text()) / 1e6, wraps))  # type: ignore[misc]
    return found


def _gpu() -> list[Counter]:
    """The GPU that torch uses in this process. Volta and later have a counter."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        index = torch.cuda.current_device()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")

        def read() -> float:
            try:
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except pynvml.NVMLError as error:
                raise OSError(str(error)) from error

        return [(read, 0.0)]
    except Exception:  # a number that is nice to have must not end a run
        return []
