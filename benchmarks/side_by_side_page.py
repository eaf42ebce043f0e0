"""Write docs/performance.md from what side_by_side.py, end_to_end.py, preparation.py and the half hour found.

python benchmarks/side_by_side_page.py            # write
python benchmarks/side_by_side_page.py --check    # 1 when the page isn't that of the results
"""

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
    sections = (section(report) for report in found)
    ready = map(preparation, prepared)
    parts = [
        INTRO,
        half_hour.sections(),
        *sections,
        true_blocks(small),
        end_to_end(around),
        *ready,
    ]
    return "\n".join(parts)


def section(report: dict[str, Any]) -> str:
    """One result file: what it was measured on, its rungs, and how well the arms agreed."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "diffusers", "transformers"))
    worst = max(value for name, value in report["parity"].items() if name != "gradient_cosine")
    rows = [
        "| arm | times the official structure | predicted | goal | samples per second [repeats] | TFLOP a sample "
        "| launches a sample | of this machine's matrix product |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rung in report["rungs"]:
        goal = f"{rung['goal']:.1f}" if rung["goal"] else ""
        slow, fast = (1 / value for value in reversed(rung["spread"]))
        rows.append(
            f"| {rung['name']} | {rung['speedup']:.2f} | {rung['predicted_speedup']:.2f} | {goal} "
            f"| {rung['per_second']:.2f} [{slow:.2f}, {fast:.2f}] | {rung['tflop']:.4f} | {rung['launches']:,.0f} "
            f"| {rung['utilisation']:.0%} |"
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
            f"Python {machine['python']}, {versions}. A sample is a pair at one timestep. The last column counts what "
            "the method needs, without recomputation and encoders, against the "
            f"{report['ceiling_tflops']:.3f} TFLOP/s of a large product in the same process. Images are encoded at "
            f"{report['encode']['images_per_second']:,.0f} a second.",
            "",
            *phases(report),
            *options(report),
        ]
    )


def phases(report: dict[str, Any]) -> list[str]:
    """Where the milliseconds of a sample go."""
    names = ["inversion", "policy", "reference", "backward", "vae", "text", "optimiser", "rest"]
    rows = [f"| ms a sample | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for rung in report["rungs"]:
        told = rung["phases_ms"]
        cells = (f"{told[name]:.1f}" if name in told else "" for name in names)
        rows.append(f"| {rung['name']} | {' | '.join(cells)} |")
    return [
        *rows,
        "",
        "smpo's backward is part of *rest*, since nothing around it can be timed without waiting for it.",
        "",
    ]


def true_blocks(small: list[dict[str, Any]]) -> str:
    """The large architectures' blocks, in small: that the GPU's command works."""
    rows = ["| blocks of | parameters | arms agree to | exact | cached |", "|---|---|---|---|---|"]
    for report in small:
        worst = max(value for name, value in report["parity"].items() if name != "gradient_cosine")
        speed = {rung["name"]: rung["speedup"] for rung in report["rungs"]}
        rows.append(
            f"| `{report['arch']}` | {report['parameters']:,} | {worst:.0e} | {speed['exact']:.2f} "
            f"| {speed['cached']:.2f} |"
        )
    return "\n".join(
        [
            "## `sd15` and `sdxl` at an eighth of their width",
            "",
            *rows,
            "",
            "One repeat, micro-batch 1, times the official structure: this shows that both arms run on the true blocks "
            "and agree, not how fast they are.",
            "",
        ]
    )


def end_to_end(around: list[dict[str, Any]]) -> str:
    """What surrounds training."""
    parts = [
        "## Around training",
        "",
        "`benchmarks/end_to_end.py` does everything that a run does on a share of its work, with empty caches, and "
        "says from the rates what each would take of the whole run. With `--arch sdxl --device cuda` it makes a "
        "pipeline of random weights, JPEGs and a reward of PickScore's size, and starts from "
        "`experiments/sdxl_smpo.yaml`.",
        "",
    ]
    for report in around:
        machine = report["machine"]
        small = ", true blocks at an eighth of their width" if report["reduced"] else ""
        visits = ", ".join(f"{gain:.3f} over {n}" for n, gain in report["encoding_once"].items() if n != "1")
        parts += [
            f"`{report['spec']}`{small}: seconds of {report['unit']}, {report['precision']}, {machine['device']}",
            "",
            "| part | a second | in a whole run | share of it |",
            "|---|---|---|---|",
            *(
                f"| {name} | {row['per_second']:,.1f} {row['what']} | {row['in_a_run']:,} | {row['share']:.1%} |"
                for name, row in report["phases"].items()
            ),
            "",
            f"Sampling {report['sampling_batch']} at a time is {report['batched_sampling_gain']:.2f} times as fast as "
            f"one by one. A picture takes {report['cache_bytes_per_picture'] / 1e3:,.1f} kB of the cache, prompts "
            f"included; encoding it once gains a factor of {visits} visits. Loading took "
            f"{report['load_seconds']:.1f} s. Seed {report['seed']}; torch {machine['torch']}, diffusers "
            f"{machine['diffusers']}.",
            "",
        ]
    return "\n".join(parts)


REMOVED = ("prompts_once", "fused_qkv")
"""Settings of the result files that smpo no longer has."""


def options(report: dict[str, Any]) -> list[str]:
    """Settings of `runtime` against the exact mode, where they were tried."""
    if not report.get("options"):
        return []
    rows = [
        "| setting | times exact | predicted | TFLOP a loss | launches a loss | kept for the backward, GB |",
        "|---|---|---|---|---|---|",
    ]
    first = report["options"][0]
    rows.append(
        f"| none | 1 | | {first['exact_tflop']:.4f} | {first['exact_launches']:,.0f} | {first['exact_kept_gb']:.4f} |"
    )
    for one in report["options"]:
        if one["name"] in REMOVED or "error" in one:
            continue
        low, high = one["spread"]
        predicted = "" if one["predicted"] is None else f"{one['predicted']:.2f}"
        counts = f"{one['tflop']:.4f} | {one['launches']:,.0f}" if "tflop" in one else " | "
        kept = "" if one["kept_gb"] is None else f"{one['kept_gb']:.4f}"
        rows.append(
            f"| `{one['name']}` | {one['gain']:.2f} [{low:.2f}, {high:.2f}] | {predicted} | {counts} | {kept} |"
        )
    return [*rows, "", "In brackets: smallest and largest of the repeats.", ""]


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
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 when the page is stale"
    )
    text = everything()
    if parser.parse_args().check:
        raise SystemExit(PAGE.read_text() != text)
    PAGE.write_text(text)
