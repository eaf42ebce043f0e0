"""Write docs/performance.md from what side_by_side.py, end_to_end.py, preparation.py and the half hour found.

python benchmarks/side_by_side_page.py            # write
python benchmarks/side_by_side_page.py --check    # 1 when the page isn't that of the results
"""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from half_hour import page as half_hour
from preparation_page import preparation

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

INTRO = "<!-- Written by benchmarks/side_by_side_page.py; don't edit. -->\n" + (
    HERE / "side_by_side_page.md"
).read_text(encoding="utf-8")
"""What doesn't follow from numbers."""


def page(
    found: list[dict[str, Any]],
    small: list[dict[str, Any]],
    around: list[dict[str, Any]],
    prepared: list[dict[str, Any]],
) -> str:
    return "\n".join(
        [INTRO, half_hour.sections(), side_by_side(found, small), shares(around), *map(preparation, prepared)]
    )


def side_by_side(found: list[dict[str, Any]], small: list[dict[str, Any]]) -> str:
    """Speed of each mode as a multiple of the official structure's, one column for each grid."""
    first = found[0]
    machine = first["machine"]
    grids = [report["grid"] for report in found]
    rows = [
        f"| mode | {' | '.join(f'grid of diffusers {grid}' for grid in grids)} | predicted | TFLOP a sample | launches a sample |",
        "|---" * (len(found) + 4) + "|",
    ]
    for index, mode in enumerate(first["rungs"]):
        speeds = " | ".join(f"{report['rungs'][index]['speedup']:.2f}" for report in found)
        rows.append(
            f"| {mode['name']} | {speeds} | {mode['predicted_speedup']:.2f} | {mode['tflop']:.4f} | {mode['launches']:,.0f} |"
        )
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "diffusers", "transformers"))
    agreement = [
        f"`{report['arch']}`'s {'blocks at an eighth of their width' if report['reduced'] else 'network'} "
        f"(grid {report['grid']}) {max(value for name, value in report['parity'].items() if name != 'gradient_cosine'):.0e}"
        for report in [*found, *small]
    ]
    return f"""## Against the official structure

`benchmarks/side_by_side.py` trains the same network on the same pairs and timesteps twice: with an independently written loop of the
official code's *structure* (one pair at a time, checkpointing, encoders in the loop) and with smpo. Before anything is timed,
latents, targets, losses and gradients must agree; largest relative differences: {"; ".join(agreement)}.

* **no checkpointing**, **encoded once**: the official structure without one cost after the other
* **batched**: smpo, inverting each micro-batch by itself
* **exact**: smpo's default, inverting an update whole
* **reuse last**: `inversion.reuse_last`, [an approximation](approximate.md)
* **amortised**: `train.timesteps_per_pair: 4`; the same expectation, but losses of a pair are correlated
* **cached**: `inversion.by: reference` with `runtime.reuse_inversions`; another algorithm

Times the official structure:

{chr(10).join(rows)}

A small network of SDXL's kind ({first["parameters"]:,} parameters) on {machine["device"]}, {first["precision"]}, {first["pairs"]} pairs, micro-batch
{first["micro_batch"]}, median of {first["repeats"]} interleaved repeats; a sample is a pair at one timestep. Python {machine["python"]}, {versions}.
The ratios are not those of a GPU. Repeats, phases and settings: `benchmarks/results/side_by_side_*.json`.
"""


def shares(around: list[dict[str, Any]]) -> str:
    """How a run's time is divided."""
    names = list(around[0]["phases"])
    rows = [f"| spec | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for report in around:
        small = ", blocks at an eighth of their width" if report["reduced"] else ""
        cells = " | ".join(f"{report['phases'][name]['share']:.1%}" for name in names)
        rows.append(f"| `{report['spec']}`{small} | {cells} |")
    first, machine = around[0], around[0]["machine"]
    return f"""## A whole run

Shares of processor time, from `benchmarks/end_to_end.py` with empty caches:

{chr(10).join(rows)}

In the first, sampling {first["sampling_batch"]} at a time is {first["batched_sampling_gain"]:.2f} times as fast as one by one. {machine["device"]}; torch
{machine["torch"]}, diffusers {machine["diffusers"]}; rates: `benchmarks/results/end_to_end_*.json`.
"""


def results(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((HERE / "results").glob(pattern))]


def everything() -> str:
    compared = results("side_by_side_*.json")
    return page(
        [report for report in compared if not report["reduced"]],
        [report for report in compared if report["reduced"]],
        results("end_to_end_*.json"),
        results("preparation.json"),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/performance.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when the page is stale")
    text = everything()
    if parser.parse_args().check:
        raise SystemExit(PAGE.read_text() != text)
    PAGE.write_text(text)
