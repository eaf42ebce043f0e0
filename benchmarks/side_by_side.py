"""The official loop's structure and smpo on the same networks, pairs and timesteps, side by side.

    python benchmarks/side_by_side.py                                              # tiny, on a CPU: two minutes
    python benchmarks/side_by_side.py --arch sdxl --device cuda --precision fp16   # the GPU numbers
    python benchmarks/side_by_side.py --arch sdxl --reduced --repeats 1 --pairs 2  # that these work: on a CPU

Parity comes first: noisy latents, targets, errors, margins, losses and the gradient of both arms agree, or nothing is
timed. Then a ladder that turns one thing at a time, arms interleaved, medians and spreads of `--repeats`, each rung
beside what was predicted of it. On a CPU times are this process' own and only their ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed import ladder
from speed.archs import GRID, World, build
from speed.measure import Phases, ceiling, counted, interleaved, machine, seconds
from speed.options import OPTIONS, compared
from speed.parity import half_parity, parity

from smpo.cli.door import quiet_libraries

RESULTS = Path(__file__).parent / "results"
HALF = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    chosen = arguments()
    quiet_libraries()
    device = torch.device(chosen.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    pairs = chosen.pairs or GRID[chosen.arch] * (1 if device.type == "cpu" else 4)
    began = time.perf_counter()
    world = build(chosen.arch, device, pairs, reduced=chosen.reduced)
    report: dict[str, Any] = {
        "arch": chosen.arch, "grid": chosen.grid, "precision": chosen.precision, "pairs": pairs,
        "reduced": chosen.reduced,
        "micro_batch": chosen.micro, "repeats": chosen.repeats, "seed": 0, "machine": machine(device),
        "parameters": sum(p.numel() for p in world.policy.parameters()),
    }  # fmt: skip
    if not chosen.skip_parity:
        report["parity"] = parity(world, chosen.grid, chosen.micro)
        print("parity   ", "  ".join(f"{name} {value:.1e}" for name, value in report["parity"].items()))
        if HALF[chosen.precision] is not None:
            report["half_parity"] = half_parity(world, chosen.grid, chosen.precision, chosen.micro)
            print(
                "16 bits  ", "  ".join(f"{name} {value:.2f}" for name, value in report["half_parity"].items())
            )
    report["ceiling_tflops"] = ceiling(device, HALF[chosen.precision])
    with tempfile.TemporaryDirectory() as folder:
        arms = ladder.arms(world, chosen.grid, chosen.precision, chosen.micro, Path(folder), chosen.mode)
        report["encode"] = encoding(world, chosen.micro)
        first = {name: warmed(update, device) for name, update in arms.items()}
        times = interleaved(arms, device, chosen.repeats)
        report["rungs"] = [
            {"name": name, **times[name], **first[name], "phases_ms": phases(update, device)}
            for name, update in arms.items()
        ]
    if chosen.options is None or chosen.options:
        report["options"] = compared(
            world, chosen.grid, chosen.precision, chosen.micro, chosen.options, chosen.repeats
        )
    ladder.judge(report, world)
    report["took_seconds"] = time.perf_counter() - began
    print(ladder.table(report))
    suffix = "_reduced" if chosen.reduced else ""
    out = chosen.out or RESULTS / f"side_by_side_{chosen.arch}{suffix}_{chosen.grid}_{device.type}.json"
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out.name} in {report['took_seconds']:.0f} s")


def warmed(update: Callable[[Any], int], device: torch.device) -> dict[str, float]:
    """The first run of an arm (kernels are chosen, graphs compiled), during which it is counted."""
    began = seconds(device)
    found = counted(update)
    return {**found, "first_seconds": seconds(device) - began}


def phases(update: Callable[[Any], int], device: torch.device) -> dict[str, float]:
    """Milliseconds per loss by phase; what no phase claims (backwards, in smpo's loop) is `rest`."""
    clock, began = Phases(device), seconds(device)
    samples = update(clock)
    total = seconds(device) - began
    rest = {"rest": total - sum(clock.seconds.values())}
    return {name: 1e3 * value / samples for name, value in {**clock.seconds, **rest}.items()}


def encoding(world: World, micro: int) -> dict[str, float]:
    """The caching pass: images a second."""
    from speed.ours import Mode, Ours

    arm = Ours(world, "0.22", "fp32", Mode(micro))
    began = seconds(world.device)
    arm.encode()
    return {"images_per_second": 2 * len(world.t) / (seconds(world.device) - began)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=list(GRID), default="tiny")
    parser.add_argument("--mode", choices=["all", "official", "exact", "amortised", "cached"], default="all",
                        help="the official arm and this mode; all: the whole ladder")  # fmt: skip
    parser.add_argument("--grid", choices=["0.20", "0.22"], default="0.22",
                        help="time grid: of diffusers before 0.22 (pinned by the official code), or since")  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(HALF), default="fp32")
    parser.add_argument("--micro", type=int, default=None, help="pairs in a pass with gradients")
    parser.add_argument(
        "--pairs", type=int, help="pairs per update; by default one per bin of timesteps (GPU: four)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--options", nargs="*", choices=list(OPTIONS), metavar="NAME",
                        help="settings of `runtime` to try on the exact mode; by default all that fit")  # fmt: skip
    parser.add_argument("--reduced", action="store_true",
                        help="true blocks at an eighth of the width: shows that it works, no more")  # fmt: skip
    parser.add_argument("--skip-parity", action="store_true", help="it was shown in an earlier call")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    chosen.micro = chosen.micro or {"tiny": 5, "sd15": 16, "sdxl": 2}[chosen.arch]
    return chosen


if __name__ == "__main__":
    main()
