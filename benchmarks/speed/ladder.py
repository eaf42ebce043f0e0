"""One switch at a time, from the official structure to smpo's modes, each rung with what was predicted of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from speed.archs import CHECKPOINTED, World
from speed.measure import unwatched
from speed.official import Habits, Official, habits_of
from speed.ours import Mode, Ours

Update = Callable[[Any], int]
HALF_OF = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}
TIMESTEPS = 4

BATCHED_ON_CPU = 1.3
"""Images a second at eight at once over one at a time, float32, one thread; measured before any of this was written."""
PREDICTED_RATE = {
    "sdxl": {"official": 0.66, "no checkpointing": 0.70, "encoded once": 0.73, "batched": 1.76, "exact": 1.92,
             "reuse last": 2.8, "amortised": 3.6, "cached": 8.8},
    "sd15": {"official": 2.9, "encoded once": 3.3, "batched": 16.1, "exact": 18.0, "reuse last": 23.0,
             "amortised": 30.0, "cached": 56.0},
}  # fmt: skip
"""Losses a second on one H200, on the grid since 0.22: a roofline model, calibrated on public results."""
GOALS = {
    "tiny": {"exact": 1.4, "amortised": 2.0, "cached": 4.0},
    "sdxl": {"exact": 3.0},
    "sd15": {"exact": 6.0},
}
"""Times the official-style arm, in the same process."""


def arms(world: World, grid: str, precision: str, micro: int, folder: Path, wanted: str) -> dict[str, Update]:
    """The rungs by name, in order; each a function that runs one update and says how many losses it had."""
    import torch

    half = getattr(torch, HALF_OF[precision]) if HALF_OF[precision] else None
    found: dict[str, Any] = {"official": Official(world, grid, half, habits_of(world.arch))}
    ours = partial(Ours, world, grid, precision)
    if wanted == "all":
        if CHECKPOINTED[world.arch]:
            found["no checkpointing"] = Official(world, grid, half, Habits(False))
        found["encoded once"] = Official(world, grid, half, Habits(False, encode_in_loop=False))
        found["batched"] = ours(Mode(micro, window=micro))
    if wanted in ("all", "exact"):
        found["exact"] = ours(Mode(micro))
    if wanted == "all":
        found["reuse last"] = ours(Mode(micro, changes=(("reuse_last", True),)))
    if wanted in ("all", "amortised"):
        found["amortised"] = ours(Mode(micro, timesteps=TIMESTEPS))
    if wanted in ("all", "cached"):
        found["cached"] = ours(Mode(micro, frozen=True), cache=folder)
        found["cached"].update(
            unwatched
        )  # the first visit costs what exact does; counted are those that follow
    return {name: arm.update for name, arm in found.items()}


def judge(report: dict[str, Any], world: World) -> None:
    """Rates, ratios, utilisation and predictions, beside the raw times."""
    rungs = report["rungs"]
    first = rungs[0]
    exact = next((rung for rung in rungs if rung["name"] in ("exact", "batched")), None)
    for rung in rungs:
        name = rung["name"]
        rung["per_second"] = 1 / rung["seconds"]
        rung["speedup"] = first["seconds"] / rung["seconds"]
        rung["tflops"] = rung["tflop"] / rung["seconds"]
        # What the method needs on this path and no more: without recomputation, encoders or padding.
        needed = (
            exact["tflop"]
            if exact and name in ("official", "no checkpointing", "encoded once", "batched")
            else rung["tflop"]
        )
        rung["model_tflops"] = needed / rung["seconds"]
        rung["utilisation"] = rung["model_tflops"] / report["ceiling_tflops"]
        rung["goal"] = None if report.get("reduced") else GOALS[world.arch].get(name)
        rate = {} if report.get("reduced") else PREDICTED_RATE.get(world.arch, {})
        if name in rate:
            rung["predicted_speedup"] = rate[name] / rate["official"]
        else:
            batched = name not in ("official", "no checkpointing", "encoded once")
            rung["predicted_speedup"] = first["tflop"] / rung["tflop"] * (BATCHED_ON_CPU if batched else 1.0)


def table(report: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [
        f"{'':<18}{'losses/s':>9}{'spread':>16}{'TFLOP':>9}{'launches':>10}{'util':>7}{'speed-up':>10}{'predicted':>11}{'goal':>6}"
    ]
    for rung in report["rungs"]:
        low, high = (1 / value for value in reversed(rung["spread"]))
        goal = "" if rung["goal"] is None else f"{rung['goal']:.1f}"
        lines.append(
            f"{rung['name']:<18}{rung['per_second']:>9.3g}{f'{low:.3g} .. {high:.3g}':>16}{rung['tflop']:>9.3g}"
            f"{rung['launches']:>10,.0f}{rung['utilisation']:>7.0%}{rung['speedup']:>10.2f}"
            f"{rung['predicted_speedup']:>11.2f}{goal:>6}"
        )
    for one in report.get("options", []):
        low, high = one["spread"]
        predicted = "" if one["predicted"] is None else f"predicted {one['predicted']:.2f}"
        lines.append(f"  {one['name']:<36}{one['gain']:.2f} times exact [{low:.2f}, {high:.2f}]  {predicted}")
    return "\n".join(lines)
