"""The official loop's structure and smpo on the same networks, pairs and timesteps, side by side.

    python benchmarks/side_by_side.py                                              # tiny, on a CPU: two minutes
    python benchmarks/side_by_side.py --arch sdxl --device cuda --precision bf16   # the GPU numbers
    python benchmarks/side_by_side.py --arch sdxl --reduced --repeats 1 --pairs 2  # that these work: on a CPU
    python benchmarks/side_by_side.py --quick                                      # the same in seconds

Parity comes first: noisy latents, targets, errors, margins, losses and the gradient of both arms agree, or nothing is
timed. Then a ladder that turns one thing at a time, arms interleaved, medians and spreads of `--repeats`, each rung
beside what was predicted of it. On a CPU times are this process' own and only their ratios mean something. The result
is written after each step, so that an interrupted call keeps what it has.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from output import add_arguments, target, write
from speed import ladder
from speed.archs import GRID, World, build
from speed.card import clocks
from speed.ceilings import ceilings
from speed.measure import Arm, Phases, counted, interleaved, machine, seconds
from speed.options import OPTIONS, compared
from speed.ours import Mode, Ours, encode
from speed.parity import half_parity, parity
from speed.profile import profiled

from smpo.cli.exit_codes import quiet_libraries
from smpo.families.speed import Speed

HALF = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
MICRO = {"tiny": 5, "sd15": 16, "sdxl": 2}
CHECKPOINTING = {"none": False, "selective": "selective", "full": True}


def main(words: list[str] | None = None) -> None:
    chosen = arguments(words)
    quiet_libraries()
    device = torch.device(chosen.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    began = time.perf_counter()
    torch.manual_seed(0)
    world = build(chosen.arch, device, chosen.pairs, reduced=chosen.reduced)
    report: dict[str, Any] = {
        "arch": chosen.arch, "grid": chosen.grid, "precision": chosen.precision, "pairs": chosen.pairs,
        "reduced": chosen.reduced, "micro_batch": chosen.micro, "inversion_batch": chosen.inversion_batch,
        "shadow_weights": chosen.shadow_weights, "attention": chosen.attention, "checkpointing": chosen.checkpointing,
        "repeats": chosen.repeats, "seed": 0, "machine": machine(device), "clocks": {"start": clocks(device)},
        "parameters": sum(p.numel() for p in world.policy.parameters()), "finished": False,
    }  # fmt: skip
    file = target(chosen, _name(chosen, device))

    def keep() -> None:
        report["took_seconds"] = time.perf_counter() - began
        write(file, report)

    keep()
    if not chosen.skip_parity:
        compare(report, world, chosen)
        keep()
    report["ceilings"] = ceilings(device, HALF[chosen.precision])
    report["ceiling_tflops"] = report["ceilings"]["matmul_tflops"]
    report["encode"] = encoding(world, chosen.micro)
    keep()
    base = Mode(
        chosen.micro, rows=chosen.inversion_batch, shadow=chosen.shadow_weights,
        speed=Speed(attention=chosen.attention), checkpointing=CHECKPOINTING[chosen.checkpointing],
    )  # fmt: skip
    report["rungs"] = []
    if chosen.mode != "none":
        with tempfile.TemporaryDirectory() as folder:
            rungs = ladder.arms(
                world, chosen.grid, chosen.precision, base, Path(folder), chosen.mode, chosen.official_pairs
            )
            climb(report, world, dict(rungs), chosen, keep)
    if chosen.profile:
        # Of few pairs: the profiler keeps every operator, and of 40 pairs there are a million.
        few = Ours(world.spread(GRID[chosen.arch]), chosen.grid, chosen.precision, base)
        with few.applied():
            report["profile"] = profiled(few.update, device)
        keep()
    if chosen.options is None or chosen.options:

        def compared_so_far(rows: list[dict[str, Any]]) -> None:
            report["options"] = rows
            keep()

        compared(world, chosen.grid, chosen.precision, base, chosen.options, chosen.repeats, compared_so_far)
    report["finished"] = True
    keep()
    print(ladder.table(report))
    print(f"written to {file.name} in {report['took_seconds']:.0f} s")


def compare(report: dict[str, Any], world: World, chosen: argparse.Namespace) -> None:
    """Parity, before anything is timed. With `--keep-going` arms that differ are timed all the same, and the result
    has their difference: a lent machine isn't there for a second try."""
    few = world.spread(chosen.parity_pairs or chosen.pairs)
    report["parity_pairs"] = len(few.t)
    checks: dict[str, Callable[[], dict[str, float]]] = {"parity": lambda: parity(few, chosen.grid, chosen.micro)}
    if HALF[chosen.precision] is not None:
        checks["half_parity"] = lambda: half_parity(few, chosen.grid, chosen.precision, chosen.micro)
    for name, check in checks.items():
        try:
            report[name] = check()
            print(f"{name:12}", "  ".join(f"{key} {value:.2g}" for key, value in report[name].items()))
        except AssertionError as error:
            if not chosen.keep_going:
                raise
            report.setdefault("parity_failed", {})[name] = str(error)
            print(f"{name:12} FAILED: {error}")


def climb(
    report: dict[str, Any],
    world: World,
    arms: dict[str, Arm],
    chosen: argparse.Namespace,
    keep: Callable[[], None],
) -> None:
    """Times the rungs, all interleaved or in groups by worth, and puts them into the report as they are known."""
    groups = [tuple(arms)]
    if chosen.by_worth:
        groups = [tuple(name for name in group if name in arms) for group in ladder.BY_WORTH]
    for group in filter(None, groups):
        some = {name: arms[name] for name in group}
        known = partial(_known, report, world, keep, list(report["rungs"]))
        first = {name: warmed(name, arm, world.device) for name, arm in some.items()}
        interleaved(some, world.device, chosen.repeats, partial(known, first))
        for rung in report["rungs"][-len(some) :]:
            rung["phases_ms"] = phases(some[rung["name"]], world.device)
            rung["micro_batch"] = getattr(some[rung["name"]], "micro_batch", 1)
        keep()


def _known(
    report: dict[str, Any], world: World, keep: Callable[[], None], done: list[Any], first: dict[str, Any],
    times: dict[str, dict[str, Any]],
) -> None:  # fmt: skip
    """Rungs of a group beside those of the groups before it, after a round of repeats."""
    report["rungs"] = [*done, *({"name": name, **times[name], **first[name]} for name in times)]
    report["clocks"][f"after {', '.join(times)}"] = clocks(world.device)
    ladder.judge(report, world)
    keep()


def warmed(name: str, arm: Arm, device: torch.device) -> dict[str, float]:
    """The first run of an arm (kernels are chosen, graphs compiled), during which it is counted."""
    ladder.filled(name, arm)
    with arm.applied():
        began = seconds(device)
        found = counted(arm.update)
        return {**found, "first_seconds": seconds(device) - began}


def phases(arm: Arm, device: torch.device) -> dict[str, float]:
    """Milliseconds per loss by phase; what no phase claims (backwards, in smpo's loop) is `rest`."""
    with arm.applied():
        clock, began = Phases(device), seconds(device)
        samples = arm.update(clock)
        total = seconds(device) - began
    rest = {"rest": total - sum(clock.seconds.values())}
    return {name: 1e3 * value / samples for name, value in {**clock.seconds, **rest}.items()}


def encoding(world: World, micro: int) -> dict[str, float]:
    """The caching pass: images a second. Warm on a GPU, where the first pass chooses kernels."""
    if world.device.type == "cuda":
        encode(world.spread(1), 2 * micro)
    began = seconds(world.device)
    world.moments = encode(world, 2 * micro)
    return {"images_per_second": 2 * len(world.t) / (seconds(world.device) - began)}


def _name(chosen: argparse.Namespace, device: torch.device) -> str:
    return f"side_by_side_{chosen.arch}{'_reduced' if chosen.reduced else ''}_{chosen.grid}_{device.type}.json"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(GRID), default="tiny")
    parser.add_argument(
        "--mode", choices=["all", "official", "exact", "amortised", "cached", "none"], default="all",
        help="the official arm and this mode; all: the whole ladder; none: `--options` alone",
    )  # fmt: skip
    parser.add_argument("--grid", choices=["0.20", "0.22"], default="0.22",
                        help="time grid: of diffusers before 0.22 (pinned by the official code), or since")  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(HALF), default="fp32")
    parser.add_argument("--micro", type=int, default=None, help="pairs in a pass with gradients")
    parser.add_argument(
        "--inversion-batch", type=int, metavar="IMAGES",
        help="images in a pass of the inversion; by default as many as in one with gradients",
    )  # fmt: skip
    parser.add_argument("--shadow-weights", action="store_true", help="in all of smpo's arms (16 bits)")
    parser.add_argument("--attention", choices=["auto", "cudnn", "flash", "efficient", "math"], default="auto")
    parser.add_argument("--checkpointing", choices=list(CHECKPOINTING), default="none")
    parser.add_argument("--pairs", type=int, help="pairs per update; by default one per bin of timesteps (GPU: four)")
    parser.add_argument(
        "--official-pairs", type=int, help="the official structure's; by default all (GPU: one per bin)"
    )
    parser.add_argument("--parity-pairs", type=int, help="pairs that are compared; by default all (GPU: two)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--options", nargs="*", choices=list(OPTIONS), metavar="NAME",
                        help="settings of `runtime` to try on the exact mode; by default all that fit")  # fmt: skip
    parser.add_argument("--reduced", action="store_true",
                        help="true blocks at an eighth of the width: shows that it works, no more")  # fmt: skip
    parser.add_argument("--skip-parity", action="store_true", help="it was shown in an earlier call")
    parser.add_argument("--keep-going", action="store_true", help="time arms that differ, too, and say so")
    parser.add_argument("--by-worth", action="store_true", help="exact against official first, then the other arms")
    parser.add_argument("--profile", action="store_true", help="kernels and launches of the exact arm")
    add_arguments(parser)
    chosen = parser.parse_args(words)
    cuda = chosen.device.startswith("cuda")
    if chosen.quick:
        chosen.reduced, chosen.repeats, chosen.micro, chosen.pairs = True, 1, 1, chosen.pairs or 2
    chosen.micro = chosen.micro or MICRO[chosen.arch]
    chosen.pairs = chosen.pairs or GRID[chosen.arch] * (4 if cuda else 1)
    if cuda:
        chosen.official_pairs = chosen.official_pairs or GRID[chosen.arch]
        chosen.parity_pairs = chosen.parity_pairs or 2
    return chosen


if __name__ == "__main__":
    main()
