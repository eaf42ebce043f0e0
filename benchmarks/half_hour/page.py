"""What `benchmarks/first_half_hour.sh` found, as a section of docs/performance.md.

python -m half_hour.page --print FOLDER    # of one folder, on the screen

The page itself is written by benchmarks/side_by_side_page.py, from the folders in benchmarks/results/first_half_hour/.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

FOLDERS = Path(__file__).parents[1] / "results" / "first_half_hour"
"""One folder a card."""
PARTS = ("doctor", "gpu", "sdxl", "options", "sd15", "memory")

NONE_YET = """**No GPU run has been made yet.** What was checked instead: the whole command ran in small on a
[pretended GPU](devices.md#pretended-gpu), and its memory part at true size. That finds crashes and counts memory; it
measures neither numbers nor speed.
"""


def section(folder: Path) -> str:
    """Everything that a folder of results holds; parts that are missing or were interrupted are named."""
    found = {part: _read(folder / f"{part}.json") for part in (*PARTS, "parts")}
    machine = next(
        (one["machine"] for part in PARTS if (one := found[part]) and "machine" in one), {"device": "unknown"}
    )
    texts = [f"## On one {machine['device']}", _machine(machine, found["doctor"]), _endings(found)]
    if any(found[part].get("reduced") for part in PARTS):
        texts.append("**A rehearsal: its networks are small, and its numbers mean nothing.**")
    for part, title in (("sdxl", "SDXL at 1024 pixels"), ("sd15", "SD 1.5 at 512 pixels")):
        if found[part]:
            small = " (rehearsed in small)" if found[part].get("reduced") else ""
            texts += [f"### {title}{small}", _side_by_side(found[part])]
    if found["options"] and found["options"].get("options"):
        texts += ["### Settings on SDXL, one at a time", _options(found["options"])]
    if found["memory"].get("cases") or found["memory"].get("presets"):
        texts += ["### Memory against `smpo plan`", _memory(found["memory"])]
    if found["gpu"]:
        texts += ["### Tests", _tests(found["gpu"])]
    return "\n\n".join(text for text in texts if text) + "\n"


def sections() -> str:
    """One section a card, or that there is none yet."""
    folders = sorted(folder for folder in FOLDERS.glob("*") if folder.is_dir())
    return "\n".join(section(folder) for folder in folders) if folders else NONE_YET


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}  # type: ignore[no-any-return]


def _machine(machine: dict[str, Any], doctor: dict[str, Any]) -> str:
    card = machine.get("card", {})
    said = [f"{key} {card[key]}" for key in ("driver", "cuda", "cudnn") if card.get(key)]
    said += [f"{name} {machine[name]}" for name in ("python", "torch", "diffusers", "transformers") if name in machine]
    text = ", ".join(said)
    if (top := doctor.get("ceilings")) is not None:
        text += (
            f". Ceilings of the card: {top['matmul_tflops']:,.0f} TFLOP/s in a large 16-bit product, "
            f"{top['copy_tb_per_second']:.1f} TB/s in a large copy, {top['launch_us']:.1f} µs for a launch"
        )
    return text + "."


def _endings(found: dict[str, Any]) -> str:
    """Parts that didn't end well, or weren't run."""
    parts = found["parts"]
    bad = [f"{name} ({parts[name]['ended']} at {parts[name]['seconds']} s)" for name in PARTS
           if name in parts and parts[name]["ended"] != "well"]  # fmt: skip
    missing = [name for name in PARTS if not found[name]]
    said = [f"Interrupted or failed: {', '.join(bad)}." if bad else "",
            f"Without a result: {', '.join(missing)}." if missing else ""]  # fmt: skip
    return " ".join(filter(None, said))


def _side_by_side(report: dict[str, Any]) -> str:
    rungs = report.get("rungs") or []
    rows = [
        {
            "arm": rung["name"],
            "samples a second [repeats]": _rate(rung),
            "goal": _number(rung.get("goal_rate"), ".1f"),
            "of it": "" if not rung.get("goal_rate") else f"{rung['per_second'] / rung['goal_rate']:.0%}",
            "times official": _number(rung.get("speedup"), ".2f"),
            "predicted": _number(rung.get("predicted_speedup"), ".2f"),
            "TFLOP/s": f"{rung['model_tflops']:,.0f}",
            "MFU": "" if rung.get("mfu") is None else f"{rung['mfu']:.0%}",
            "of the product": f"{rung['utilisation']:.0%}",
            "launches a sample": f"{rung['launches']:,.0f}",
            "peak, GB": _number(rung.get("peak_gb"), ".1f"),
        }
        for rung in rungs
    ]
    settings = rows and (
        f"Grid of diffusers {report['grid']}, {report['precision']}, {report['pairs']} pairs an update, micro-batch "
        f"{report['micro_batch']}, inversion batch {report['inversion_batch'] or 'as large'}, "
        f"{'shadow weights, ' if report['shadow_weights'] else ''}checkpointing {report['checkpointing']}, seed "
        f"{report['seed']}. TFLOP/s count what the method needs, without recomputation; MFU is their share of the "
        "datasheet's dense 16-bit peak, *of the product* their share of a large product's in the same process."
    )
    texts = [_agreement(report), _grid(rows), settings, _clocks(report)]
    return "\n\n".join(filter(None, [*texts, _profile(report.get("profile"))]))


def _agreement(report: dict[str, Any]) -> str:
    if failed := report.get("parity_failed"):
        return "**The arms were not shown to agree**: " + "; ".join(f"{k}: {v}" for k, v in failed.items()) + "."
    if not (found := report.get("parity")):
        return "Whether the arms agree was not checked in this run."
    worst = max(value for name, value in found.items() if name != "gradient_cosine")
    return (
        f"In float32 the official structure and smpo agree to a relative {worst:.0e} (pairs compared: "
        f"{report['parity_pairs']}), and their gradients' cosine is 1 - {found['gradient_cosine']:.0e}."
    )


def _clocks(report: dict[str, Any]) -> str:
    speeds = [one["sm_clock_mhz"] for one in report.get("clocks", {}).values() if "sm_clock_mhz" in one]
    return f"SM clock between {min(speeds):,.0f} and {max(speeds):,.0f} MHz when it was read." if speeds else ""


def _profile(found: dict[str, Any] | None) -> str:
    if not found or not found["kernels"]:
        return ""
    rows = [
        {
            "kernel": f"`{one['name'][:80]}`",
            "ms a sample": f"{one['ms']:.2f}",
            "launches": f"{one['launches']:,.1f}",
        }
        for one in found["kernels"][:10]
    ]
    return (
        f"Exact, under the profiler: {found['launches_per_pair']:,.0f} launches a sample, the device busy "
        f"{found['busy']:.0%} of the time.\n\n{_grid(rows)}"
    )


def _options(report: dict[str, Any]) -> str:
    rows = []
    for one in report["options"]:
        if "error" in one:
            rows.append(
                {
                    "setting": f"`{one['name']}`",
                    "times exact": "failed",
                    "peak, GB": one["error"].splitlines()[0][:80],
                }
            )
            continue
        low, high = one["spread"]
        rows.append(
            {
                "setting": f"`{one['name']}`", "times exact": f"{one['gain']:.2f} [{low:.2f}, {high:.2f}]",
                "predicted": _number(one["predicted"], ".2f"), "peak, GB": _number(one["peak_gb"], ".1f"),
                "without it": _number(one["exact_peak_gb"], ".1f"),
            }
        )  # fmt: skip
    return (
        f"{_grid(rows)}\n\n{report['pairs']} pairs an update, micro-batch {report['micro_batch']}, "
        f"{report['precision']}, {report['repeats']} interleaved repeats."
    )


def _memory(report: dict[str, Any]) -> str:
    rows = [
        {
            "training": name,
            "allocated, GB": _number(one.get("allocated_gb"), ".1f") or one.get("error", "not measured")[:60],
            "planned": f"{one['plan']['allocated_gb']:.1f}",
            "reserved, GB": _number(one.get("reserved_gb"), ".1f"),
            "planned for it": f"{one['plan']['reserved_gb']:.1f}",
            "plan by measurement": "" if "allocated_ratio" not in one
            else f"{one['allocated_ratio']:.2f}, {one['reserved_ratio']:.2f}",
        }
        for kind in ("presets", "cases")
        for name, one in report.get(kind, {}).items()
    ]  # fmt: skip
    return _grid(rows)


def _tests(report: dict[str, Any]) -> str:
    counts = Counter(test["outcome"] for test in report["tests"])
    text = f"`pytest -m gpu`: {', '.join(f'{n} {name}' for name, n in sorted(counts.items())) or 'none ran'}"
    text += f" of {report['collected']}" + ("." if report["finished"] else ", when it was interrupted.")
    bad = [test["name"] for test in report["tests"] if test["outcome"] in ("failed", "error")]
    return text + ("\n\nNot passed: " + ", ".join(f"`{name}`" for name in bad) + "." if bad else "")


def _rate(rung: dict[str, Any]) -> str:
    slow, fast = (1 / value for value in reversed(rung["spread"]))
    return f"{rung['per_second']:.2f} [{slow:.2f}, {fast:.2f}]"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _grid(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [head, ["---"] * len(head), *([row.get(name, "") for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", type=Path, required=True, metavar="FOLDER", dest="folder")
    print(section(parser.parse_args().folder))


if __name__ == "__main__":
    main()
