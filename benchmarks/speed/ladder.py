"""One switch at a time, from the official structure to smpo's modes, each rung with what was predicted of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from speed.archs import CHECKPOINTED, World
from speed.card import peak_tflops
from speed.measure import Arm, unwatched
from speed.official import Habits, Official, habits_of
from speed.ours import Mode, Ours

__all__ = ["BY_WORTH", "arms", "filled", "judge", "table"]

HALF_OF = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
TIMESTEPS = 4
BY_WORTH = (
    ("official", "exact"),
    ("cached",),
    ("amortised", "batched"),
    ("no checkpointing", "encoded once", "reuse last"),
)
"""Rungs in groups, for a machine that is lent for minutes: the comparison that counts is measured before the others are
begun."""
THEIRS = ("official", "no checkpointing", "encoded once")

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
GOAL_RATE = {
    "sdxl": {"exact": 2.0, "cached": 8.5, "amortised": 3.6},
    "sd15": {"exact": 18.0, "cached": 55.0, "amortised": 30.0},
}
"""Losses a second on one H200 in 16 bits: of SDXL at 1024 pixels and SD 1.5 at 512, on the grid since 0.22."""


def arms(
    world: World,
    grid: str,
    precision: str,
    base: Mode,
    folder: Path,
    wanted: str,
    official_pairs: int | None = None,
) -> Iterator[tuple[str, Arm]]:
    """The rungs with their names, in order. `base`: how smpo works in all of its arms, but for what an arm is about.
    `official_pairs`: those of the official structure's arms, which take the most time and need no more than one pair in
    each bin of timesteps; None: all."""
    official = partial(Official, world.spread(official_pairs or len(world.t)), grid, HALF_OF[precision])
    ours = partial(Ours, world, grid, precision)
    every = wanted == "all"
    yield "official", official(habits_of(world.arch))
    if every:
        if CHECKPOINTED[world.arch]:
            yield "no checkpointing", official(Habits(False))
        yield "encoded once", official(Habits(False, encode_in_loop=False))
        yield "batched", ours(replace(base, window=base.micro))
    if wanted in ("all", "exact"):
        yield "exact", ours(base)
    if every:
        yield "reuse last", ours(replace(base, changes=(("reuse_last", True),)))
    if wanted in ("all", "amortised"):
        yield "amortised", ours(replace(base, timesteps=TIMESTEPS))
    if wanted in ("all", "cached"):
        yield "cached", ours(replace(base, frozen=True), cache=folder)


def filled(name: str, arm: Arm) -> None:
    """The first visit of a pair costs the `cached` arm what `exact` costs; counted are the visits that follow."""
    if name == "cached":
        with arm.applied():
            arm.update(unwatched)


def judge(report: dict[str, Any], world: World) -> None:
    """Rates, ratios, utilisation, predictions and goals, beside the raw times of `report["rungs"]`."""
    rungs = report["rungs"]
    first = next((rung for rung in rungs if rung["name"] == "official"), None)
    exact = next((rung for rung in rungs if rung["name"] in ("exact", "batched")), None)
    peak = peak_tflops(world.device)
    true = not report.get("reduced")
    for rung in rungs:
        name = rung["name"]
        rung["per_second"] = 1 / rung["seconds"]
        rung["speedup"] = first["seconds"] / rung["seconds"] if first else None
        rung["tflops"] = rung["tflop"] / rung["seconds"]
        # What the method needs on this path and no more: without recomputation, encoders or padding.
        needed = exact["tflop"] if exact and name in (*THEIRS, "batched") else rung["tflop"]
        rung["model_tflops"] = needed / rung["seconds"]
        rung["utilisation"] = rung["model_tflops"] / report["ceiling_tflops"]
        rung["mfu"] = rung["model_tflops"] / peak if peak and report["precision"] != "fp32" else None
        rung["goal"] = GOALS[world.arch].get(name) if true else None
        on_a_gpu = true and world.device.type == "cuda" and report["precision"] != "fp32"
        rung["goal_rate"] = GOAL_RATE.get(world.arch, {}).get(name) if on_a_gpu else None
        rung["predicted_speedup"] = _predicted(rung, first, PREDICTED_RATE.get(world.arch, {}) if true else {})


def _predicted(rung: dict[str, Any], first: dict[str, Any] | None, rate: dict[str, float]) -> float | None:
    name = rung["name"]
    if name in rate:
        return rate[name] / rate["official"]
    if first is None:
        return None
    return float(first["tflop"] / rung["tflop"] * (BATCHED_ON_CPU if name not in THEIRS else 1.0))


def table(report: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [
        f"{'':<18}{'losses/s':>9}{'spread':>16}{'TFLOP':>9}{'launches':>10}{'util':>7}{'speed-up':>10}{'predicted':>11}{'goal':>6}"
        f"{'goal/s':>8}"
    ]
    for rung in report["rungs"]:
        low, high = (1 / value for value in reversed(rung["spread"]))
        lines.append(
            f"{rung['name']:<18}{rung['per_second']:>9.3g}{f'{low:.3g} .. {high:.3g}':>16}{rung['tflop']:>9.3g}"
            f"{rung['launches']:>10,.0f}{rung['utilisation']:>7.0%}{_cell(rung['speedup'], '10.2f')}"
            f"{_cell(rung['predicted_speedup'], '11.2f')}{_cell(rung['goal'], '6.1f')}"
            f"{_cell(rung['goal_rate'], '8.1f')}"
        )
    lines += [_option(one) for one in report.get("options", [])]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else " " * int(form.split(".")[0])


def _option(one: dict[str, Any]) -> str:
    if "error" in one:
        return f"  {one['name']:<36}failed: {one['error'].splitlines()[0][:80]}"
    low, high = one["spread"]
    predicted = "" if one["predicted"] is None else f"predicted {one['predicted']:.2f}"
    return f"  {one['name']:<36}{one['gain']:.2f} times exact [{low:.2f}, {high:.2f}]  {predicted}"
