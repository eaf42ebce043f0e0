"""Write docs/performance.md from what side_by_side.py found.

python benchmarks/side_by_side_page.py            # write
python benchmarks/side_by_side_page.py --check    # 1 when the page isn't that of the results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

INTRO = """<!-- Written by benchmarks/side_by_side_page.py; don't edit. -->
# Performance

`benchmarks/side_by_side.py` trains the same networks on the same pairs and timesteps in two ways: with an independently
written loop of the official code's *structure* (one pair at a time, checkpointing, scheduler steps on scalars, VAE and
text encoders in the loop, values fetched pair by pair) and with smpo. Noisy latents, targets, errors, margins, losses
and gradients of both must agree before anything is timed. Then one thing is turned at a time:

* **no checkpointing**, **encoded once**: the official structure, relieved of one cost after the other;
* **batched**: smpo, inverting each micro-batch by itself;
* **exact**: smpo as it trains by default, inverting an update whole; the same estimator up to rounding;
* **amortised**: `train.timesteps_per_pair: 4`, several timesteps along one inversion; the same expectation, with a
  variance that depends on how alike a pair's gradients are (`smpo measure rho SPEC` tells, and what the gain is then);
* **cached**: inversion by the frozen reference, read from the cache (`runtime.reuse_inversions`); another algorithm.
  When this was measured the reference was still asked at the noisy latent; what it said is remembered since.

The cores were shared while this was measured, and repeats spread by a tenth and more: *exact* isn't told apart from
*batched* in time. It takes fewer passes, which a test counts.

On a CPU, times are the process' own, and only ratios mean anything; the network is a small one of SDXL's kind, and its
ratios are not those of a GPU. **No GPU was measured yet.** There it is one line, for `sd15` and `sdxl`:

<!-- not run: it needs a GPU -->
```bash
python benchmarks/side_by_side.py --arch sdxl --device cuda --precision fp16
```
"""


def page(found: list[dict[str, Any]], rho: dict[str, Any]) -> str:
    return "\n".join([INTRO, worth(rho), *(section(report) for report in found)])


def worth(rho: dict[str, Any]) -> str:
    """What several timesteps a walk are worth once the likeness of their gradients is counted."""
    found, machine = rho["found"], rho["machine"]
    rows = [
        f"| {one['timesteps']} | {one['raw']:.2f} | {one['gain']:.2f} [{one['low']:.2f}, {one['high']:.2f}] |"
        for one in found["choices"]
    ]
    return "\n".join(
        [
            f"## What amortising is worth on `{rho['spec']}`",
            "",
            f"Gradients of one pair at two timesteps correlate at {found['rho']:.3f} [{found['low']:.3f}, "
            f"{found['high']:.3f}] there (the base, {found['pairs']} pairs, {found['levels']} timesteps), so at equal "
            "variance more timesteps a walk are worth:",
            "",
            "| timesteps a pair | raw gain | gain at equal variance [95 %] |",
            "|---|---|---|",
            *rows,
            "",
            "Below 1 it loses. The amortised rows further down are raw gains. "
            f"`benchmarks/rho.py`; {machine['device']}, Python {machine['python']}, torch {machine['torch']}.",
            "",
        ]
    )


def section(report: dict[str, Any]) -> str:
    """One result file: what it was measured on, its rungs, and how well the arms agreed."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "diffusers", "transformers"))
    worst = max(value for name, value in report["parity"].items() if name != "gradient_cosine")
    rows = [
        "| arm | times the official structure | predicted | goal | samples per second | kernel launches a pair |",
        "|---|---|---|---|---|---|",
    ]
    for rung in report["rungs"]:
        goal = f"{rung['goal']:.1f}" if rung["goal"] else ""
        rows.append(
            f"| {rung['name']} | {rung['speedup']:.2f} | {rung['predicted_speedup']:.2f} | {goal} "
            f"| {rung['per_second']:.2f} | {rung['launches']:,.0f} |"
        )
    return "\n".join(
        [
            f"## `{report['arch']}`, grid of diffusers {report['grid']}, {machine['device']}",
            "",
            *rows,
            "",
            f"{report['pairs']} pairs, micro-batch {report['micro_batch']}, {report['precision']}, median of "
            f"{report['repeats']} interleaved repeats, seed {report['seed']}; {report['parameters']:,} parameters. The "
            f"arms agree to a relative {worst:.0e} (gradient's cosine: 1 - {report['parity']['gradient_cosine']:.0e}). "
            f"Python {machine['python']}, {versions}. A sample is a pair at one timestep.",
            "",
        ]
    )


def results() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((HERE / "results").glob("side_by_side_*.json"))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/performance.md.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 when the page is stale"
    )
    text = page(results(), json.loads((HERE / "results" / "rho_plane.json").read_text()))
    if parser.parse_args().check:
        raise SystemExit(PAGE.read_text() != text)
    PAGE.write_text(text)
