"""Settings of `runtime` that make the same estimator in another way, each against the exact mode as it comes.

One at a time, interleaved with the exact mode, and undone afterwards: they work on the same networks. Beside what was
measured stands what was to be expected: from the FLOPs that were counted, or from elsewhere (`why`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from torch import nn

from smpo.families.speed import Speed
from speed.archs import World
from speed.live import Live
from speed.measure import counted, seconds, timed, unwatched
from speed.ours import Mode, Ours

__all__ = ["OPTIONS", "compared"]


@dataclass(frozen=True)
class Option:
    """`changes`: fields of `speed.ours.Mode`. `predicted`: times the exact mode, by device; None: what the counted
    FLOPs say. `needs`: where it is tried; elsewhere by name alone."""

    changes: dict[str, Any]
    predicted: dict[str, float] | None = None
    why: str = "FLOPs, counted"
    needs: Literal["", "half", "cuda", "cpu"] = ""

    @property
    def compiles(self) -> bool:
        return "speed" in self.changes and bool(self.changes["speed"].compile)


OPTIONS = {
    "shadow_weights": Option(
        {"shadow": True}, predicted={"cpu": 1.0, "cuda": 1.05}, why="15.4 GB less traffic a pass for SDXL", needs="half"
    ),
    "inversion_batch: 32": Option(
        {"rows": 32}, predicted={"cuda": 1.05}, why="roofline model, from 8 images a pass", needs="cuda"
    ),
    "attention: cudnn": Option(
        {"speed": Speed(attention="cudnn")}, predicted={"cuda": 1.045},
        why="1.3 to 1.5 times on 16 % of SDXL's time", needs="cuda",
    ),
    "gradient_checkpointing: selective": Option({"checkpointing": "selective"}),
    "gradient_checkpointing": Option({"checkpointing": True}),
    "channels_last": Option(
        {"speed": Speed(channels_last=True)}, predicted={"cpu": 1.0, "cuda": 0.97},
        why="neutral on a CPU; torch's GroupNorm undoes it on a GPU unless it is compiled",
    ),
    "attention: math": Option(
        {"speed": Speed(attention="math")}, predicted={"cpu": 0.9, "cuda": 0.8},
        why="attention is 11 to 16 % of the work", needs="cpu",  # true sizes take more memory than a GPU has
    ),
    "compile": Option(
        {"speed": Speed(compile=True), "even": True}, predicted={"cpu": 1.06, "cuda": 1.07},
        why="roofline model, of inversions alone; 1.06 on single blocks", needs="cuda",
    ),
    "compile, channels_last": Option(
        {"speed": Speed(compile=True, channels_last=True), "even": True}, predicted={"cuda": 1.06},
        why="roofline model, of inversions alone", needs="cuda",
    ),
}  # fmt: skip
"""In order of worth. On a CPU, compiling takes minutes for nothing."""


def compared(
    world: World, grid: str, precision: str, base: Mode, names: list[str] | None, repeats: int,
    measured: Callable[[list[dict[str, Any]]], None] = lambda _: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Each option's seconds a loss beside the exact mode's (`base`), with what was counted. `names` None: all that fit
    here. `measured` is called with the rows so far after each option. An option that fails, for want of memory or of a
    kernel, has its `error` in its row, and the others go on."""
    exact = Ours(world, grid, precision, base)
    with exact.applied():
        common = {f"exact_{name}": value for name, value in counted(exact.update).items()}
        # Before there is another arm, whose copies of weights would count.
        common["exact_peak_gb"] = timed(exact.update, world.device)[1]
    common["exact_kept_gb"] = _kept(world, exact)
    found: list[dict[str, Any]] = []
    for name, option in OPTIONS.items():
        fits = {"": True, "half": precision != "fp32"}.get(option.needs, option.needs == world.device.type)
        if not (name in names if names is not None else fits):
            continue
        row: dict[str, Any] = {"name": name, "why": option.why, **common}
        try:
            row |= _compared(exact, Ours(world, grid, precision, replace(base, **option.changes)), option, repeats)
            if option.predicted is None:
                row["predicted"] = row["exact_tflop"] / row["tflop"]
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
            world.optimiser.zero_grad()
        found.append(row)
        measured(found)
        gc.collect()
    return found


def _compared(exact: Ours, arm: Ours, option: Option, repeats: int) -> dict[str, Any]:
    device = arm.world.device
    with arm.applied():
        began = seconds(device)
        arm.update(unwatched)
        first = seconds(device) - began
        wanted = (option.predicted is None or device.type == "cpu") and not option.compiles
        count = counted(arm.update) if wanted else {}
    times: dict[str, list[float]] = {"exact": [], "option": []}
    for _ in range(repeats):
        for which, one in (("exact", exact), ("option", arm)):
            with one.applied():
                taken, peak = timed(one.update, device)
            times[which].append(taken)
    ratio = [a / b for a, b in zip(times["exact"], times["option"], strict=True)]
    return {
        "gain": median(ratio), "spread": [min(ratio), max(ratio)], "seconds": median(times["option"]),
        "predicted": (option.predicted or {}).get(device.type), "first_seconds": first, **count,
        "kept_gb": None if option.compiles else _kept(arm.world, arm),
        "peak_gb": peak, "micro_batch": arm.micro_batch,
    }  # fmt: skip


def _kept(world: World, arm: Ours) -> float:
    """GB that the backward of one pass keeps, weights apart: what is alive when the forward is done."""
    x, t, cond = arm.some()
    with arm.applied(), Live(nn.Module.parameters(world.policy)) as live:
        out = arm.denoiser.predict(x, t, cond)
        kept = live.now / 1e9
        del out
    return kept
