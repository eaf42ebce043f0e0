"""What the machine can do at best, measured in the process that is measured: products, copies, launches."""

from __future__ import annotations

from statistics import median

import torch

from speed.measure import seconds

__all__ = ["ceilings"]


def ceilings(device: torch.device, half: torch.dtype | None) -> dict[str, float]:
    """`matmul_tflops` of a large square product on random numbers in this precision, `copy_tb_per_second` of a large
    copy (bytes read and bytes written), `launch_us` of an addition to one number."""
    return {
        "matmul_tflops": _matmul(device, half or torch.float32),
        "copy_tb_per_second": _copy(device),
        "launch_us": _launch(device),
    }


def _matmul(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(5):
        began = seconds(device)
        for _ in range(4):
            a @ b
        times.append((seconds(device) - began) / 4)
    return 2 * side**3 / min(times) / 1e12


def _copy(device: torch.device) -> float:
    """Of 2 GB on a GPU, or of an eighth of what is free there; of 64 MB on a CPU."""
    count = 16 * 2**20
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        count = min(5 * 10**8, int(free) // 8 // 4)
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        began = seconds(device)
        target.copy_(source)
        times.append(seconds(device) - began)
    return 2 * 4 * count / min(times) / 1e12


def _launch(device: torch.device) -> float:
    one = torch.zeros(1, device=device)
    times = []
    for _ in range(5):
        began = seconds(device)
        for _ in range(1000):
            one.add_(1)
        times.append((seconds(device) - began) / 1000)
    return 1e6 * median(times)
