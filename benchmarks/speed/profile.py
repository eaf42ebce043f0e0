"""Where a GPU's time goes in one update: kernels by name, launches, the share of time in which the device works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from speed.measure import seconds, unwatched

__all__ = ["profiled"]

TOP = 30
"""Kernels and operators that are listed, by their own time."""


def profiled(update: Callable[[Any], int], device: torch.device) -> dict[str, Any]:
    """One update under torch.profiler.

    `launches_per_pair`: kernels and copies started on the device for each loss; `busy`: the share of the update's time
    covered by them, overlaps counted once; `kernels` and `operators`: the `TOP` of each by their own time in
    milliseconds a loss. On a CPU there are operators alone. The profiler slows the host, so `seconds_per_pair` is
    larger than without it and `busy` smaller.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as recorded:
        began = seconds(device)
        pairs = update(unwatched)
        taken = seconds(device) - began
    spans = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in recorded.events() or []
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    busy = _covered(spans) / 1e6
    return {
        "pairs": pairs,
        "seconds_per_pair": taken / pairs,
        "launches_per_pair": len(spans) / pairs,
        "busy": busy / taken if spans else None,
        "kernels": _kernels(spans, pairs),
        "operators": _operators(recorded, pairs),
    }


def _covered(spans: list[tuple[float, float, str]]) -> float:
    """Microseconds in which at least one of the spans lasts."""
    total, until = 0.0, float("-inf")
    for start, end, _ in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _kernels(spans: list[tuple[float, float, str]], pairs: int) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for start, end, name in spans:
        found.setdefault(name, []).append(end - start)
    rows = [
        {"name": name[:160], "ms": sum(times) / 1e3 / pairs, "launches": len(times) / pairs}
        for name, times in found.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])[:TOP]


def _operators(recorded: profile, pairs: int) -> list[dict[str, Any]]:
    rows = [
        {"name": one.key[:160], "host_ms": one.self_cpu_time_total / 1e3 / pairs, "calls": one.count / pairs,
         "device_ms": getattr(one, "self_device_time_total", 0.0) / 1e3 / pairs}
        for one in recorded.key_averages()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -(row["device_ms"] or row["host_ms"]))[:TOP]
