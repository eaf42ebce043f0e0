"""The GPU that a benchmark runs on: driver, memory, clocks, datasheet peak."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

__all__ = ["card", "clocks", "peak_tflops"]

_FACTS = {
    "driver": "driver_version", "memory_mib": "memory.total", "sm_clock_max_mhz": "clocks.max.sm",
    "memory_clock_max_mhz": "clocks.max.memory", "power_limit_w": "power.limit", "ecc": "ecc.mode.current",
}  # fmt: skip
_CLOCKS = {
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "power_w": "power.draw",
    "celsius": "temperature.gpu",
}
_PEAKS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "A800": 312.0, "4090": 165.0}
"""Dense 16-bit TFLOP/s of NVIDIA's datasheets, by a part of the card's name; the first that fits counts."""


def card(device: torch.device) -> dict[str, Any]:
    """Name, CUDA and cuDNN versions, driver, memory and limits of a CUDA device; `{}` on a CPU."""
    if device.type != "cuda":
        return {}
    facts = torch.cuda.get_device_properties(device)
    return {
        "name": facts.name, "compute_capability": f"{facts.major}.{facts.minor}",
        "processors": facts.multi_processor_count, "cuda": torch.version.cuda,
        "cudnn": _cudnn(), **_query(_FACTS, device),
    }  # fmt: skip


def clocks(device: torch.device) -> dict[str, Any]:
    """Clocks, power and temperature of this moment; `{}` on a CPU, and where nvidia-smi is missing."""
    return _query(_CLOCKS, device) if device.type == "cuda" else {}


def peak_tflops(device: torch.device) -> float | None:
    """Dense 16-bit TFLOP/s of the datasheet; None for a CPU and for cards without an entry."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS.items() if part in name), None)


def _cudnn() -> int | str | None:
    """Its version; or why torch refuses the one that it found, which is worth having in a result."""
    try:
        return torch.backends.cudnn.version()
    except RuntimeError as error:
        return str(error).split(". ")[0]


def _query(fields: dict[str, str], device: torch.device) -> dict[str, Any]:
    """Values of nvidia-smi for this device, numbers as numbers; `{}` when the program is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    # By UUID: nvidia-smi knows nothing of CUDA_VISIBLE_DEVICES.
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    which = ["-i", uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"] if uuid else []
    command = [tool, *which, f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {}
    return dict(zip(fields, map(_number, lines[0].split(", ")), strict=False))


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text.strip()
