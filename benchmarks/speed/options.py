"""Settings of `runtime` that make the same estimator in another way, each against the exact mode as it comes.

One at a time, interleaved with the exact mode, and undone afterwards: they work on the same networks. Beside what was
measured stands what was to be expected: from the FLOPs that were counted, or from elsewhere (`why`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

import torch
from torch import nn

from smpo.families.recompute import checkpoint
from smpo.families.speed import Speed
from speed.archs import World
from speed.live import Live
from speed.measure import counted, seconds, unwatched
from speed.ours import Mode, Ours

__all__ = ["OPTIONS", "compared"]


@dataclass(frozen=True)
class Option:
    """`speed`: fields of `smpo.families.speed.Speed`. `predicted`: times the exact mode, by device; None: what the
    counted FLOPs say."""

    speed: dict[str, Any] = field(default_factory=dict)
    checkpointing: bool | Literal["selective"] = False
    shadow: bool = False
    even: bool = False
    predicted: dict[str, float] | None = None
    why: str = "FLOPs, counted"
    needs: Literal["", "half", "cuda"] = ""


OPTIONS = {
    "gradient_checkpointing": Option(checkpointing=True),
    "gradient_checkpointing: selective": Option(checkpointing="selective"),
    "channels_last": Option(
        {"channels_last": True}, predicted={"cpu": 1.0, "cuda": 0.97},
        why="neutral on a CPU; torch's GroupNorm undoes it on a GPU unless it is compiled",
    ),
    "attention: math": Option(
        {"attention": "math"}, predicted={"cpu": 0.9, "cuda": 0.8}, why="attention is 11 to 16 % of the work"
    ),
    "attention: cudnn": Option(
        {"attention": "cudnn"}, predicted={"cuda": 1.045}, why="1.3 to 1.5 times on 16 % of SDXL's time", needs="cuda"
    ),
    "shadow_weights": Option(
        shadow=True, predicted={"cpu": 1.0, "cuda": 1.05}, why="15.4 GB less traffic a pass for SDXL", needs="half"
    ),
    "compile": Option(
        {"compile": True}, even=True, predicted={"cpu": 1.06, "cuda": 1.09},
        why="roofline model; 1.06 on single blocks",
        needs="cuda",
    ),
    "compile, channels_last": Option(
        {"compile": True, "channels_last": True}, even=True, predicted={"cuda": 1.10},
        why="roofline model: 9 to 10 % for SDXL", needs="cuda",
    ),
}  # fmt: skip
"""`needs`: left out elsewhere unless asked for by name. On a CPU, compiling takes minutes for nothing."""


def compared(
    world: World, grid: str, precision: str, micro: int, names: list[str] | None, repeats: int
) -> list[dict[str, Any]]:
    """Each option's seconds a loss beside the exact mode's, with what was counted. `names` None: all that fit here."""
    exact = Ours(world, grid, precision, Mode(micro))
    exact.update(unwatched)
    base, found = counted(exact.update), []
    here = world.device.type
    for name, option in OPTIONS.items():
        fits = {"": True, "half": precision != "fp32", "cuda": here == "cuda"}[option.needs]
        if not (name in names if names is not None else fits):
            continue
        arm = Ours(
            world,
            grid,
            precision,
            Mode(micro, even=option.even),
            speed=Speed(**option.speed),
            shadow=option.shadow,
        )
        _switch(world, option)
        began = seconds(world.device)
        arm.update(unwatched)
        first = seconds(world.device) - began
        count = counted(arm.update) if not option.speed.get("compile") else {}
        _undo(world)
        times: dict[str, list[float]] = {"exact": [], "option": []}
        peaks: dict[str, float] = {}
        for _ in range(repeats):
            for which, update in (("exact", exact.update), ("option", arm.update)):
                if which == "option":
                    _switch(world, option)
                times[which].append(_timed(update, world.device, which, peaks))
                _undo(world)
        ratio = [a / b for a, b in zip(times["exact"], times["option"], strict=True)]
        predicted = base["tflop"] / count["tflop"] if option.predicted is None else option.predicted.get(here)
        found.append(
            {
                "name": name, "gain": median(ratio), "spread": [min(ratio), max(ratio)], "predicted": predicted,
                "why": option.why, "first_seconds": first, "seconds": median(times["option"]), **count,
                "exact_tflop": base["tflop"], "exact_launches": base["launches"], "kept_gb": _kept(world, arm, option),
                "exact_kept_gb": _kept(world, exact, Option()), "peak_gb": peaks.get("option"),
                "exact_peak_gb": peaks.get("exact"),
            }
        )  # fmt: skip
        del arm
        gc.collect()
    return found


def _timed(update: Callable[[Any], int], device: torch.device, which: str, peaks: dict[str, float]) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = seconds(device)
    samples = update(unwatched)
    taken = (seconds(device) - began) / samples
    if device.type == "cuda":
        peaks[which] = torch.cuda.max_memory_allocated() / 1e9
    return taken


def _switch(world: World, option: Option) -> None:
    for network in (world.policy, world.reference):
        Speed(**option.speed).prepare(network)
    checkpoint(world.policy, option.checkpointing)


def _undo(world: World) -> None:
    world.policy.disable_gradient_checkpointing()  # type: ignore[operator]
    for network in (world.policy, world.reference):
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in network.modules():
            module._compiled_call_impl = None


def _kept(world: World, arm: Ours, option: Option) -> float:
    """GB that the backward of one pass keeps, weights apart: what is alive when the forward is done."""
    if option.speed.get("compile"):
        return float("nan")
    x, t, cond = arm.some()
    _switch(world, option)
    with Live(nn.Module.parameters(world.policy)) as live:
        out = arm.denoiser.predict(x, t, cond)
    kept = live.now / 1e9
    del out
    _undo(world)
    return kept
