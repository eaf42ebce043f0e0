"""How much memory a training takes: what `smpo plan` estimates against what small trainings really allocate.

    python benchmarks/memory.py                    # writes benchmarks/results/memory.json; minutes of one core
    python benchmarks/memory.py --device cuda      # the same on a GPU, by torch.cuda.max_memory_allocated
    python benchmarks/memory.py --quick            # seconds, to see that it works: one training

Two parts. *Counted*: activations of the public architectures at their true size, on meta tensors; the tables of
smpo/app/costs.py are held against them. *Measured*: smpo's own loop on small networks of the two shapes, two updates of
several micro-batches, with every option that changes memory; the peak of live tensors beside `memory_parts`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from costs import SD15, SDXL
from output import add_arguments, target, write
from speed.live import Live, activations
from speed.measure import machine
from speed.small import SHAPES, session

from smpo.app.costs import Architecture, Workload, state_bytes
from smpo.app.memory import memory_gb, memory_parts
from smpo.components.optimisers import Adafactor, AdamW, AdamW8bit
from smpo.engine.loop import fit

TRUE = {"SD 1.5 at 512 px": (SD15, 512), "SDXL at 1024 px": (SDXL, 1024)}


@dataclass(frozen=True)
class Case:
    """One training: fields of a spec that change memory."""

    precision: str = "fp32"
    optimiser: str = "adamw"
    rank: int | None = None
    dora: bool = False
    checkpointing: bool = False
    micro: int = 2
    window: int | None = None
    ema: bool = False
    reference: bool = True
    shadow: bool = False

    @property
    def name(self) -> str:
        said = [
            self.precision,
            "full" if self.rank is None else f"{'DoRA' if self.dora else 'LoRA'} {self.rank}",
            self.optimiser,
        ]
        said += [
            word
            for word, on in (
                ("checkpointing", self.checkpointing),
                ("EMA", self.ema),
                ("no reference", not self.reference),
                ("shadow", self.shadow),
            )
            if on
        ]
        return ", ".join([*said, f"micro {self.micro}", *([f"window {self.window}"] if self.window else [])])


PAIRS = 4
CASES = [
    Case(), Case(checkpointing=True), Case(optimiser="adafactor"), Case(optimiser="adamw-8bit"), Case(ema=True),
    Case(reference=False), Case(micro=1, window=1), Case(rank=8), Case(rank=8, checkpointing=True),
    Case(rank=8, dora=True), Case(precision="bf16"), Case(precision="bf16", checkpointing=True),
    Case(precision="bf16", shadow=True), Case(precision="bf16", rank=8),
]  # fmt: skip
OPTIMISERS = {"adamw": AdamW, "adafactor": Adafactor, "adamw-8bit": AdamW8bit}


COUNTED = {
    "full, fp16": {}, "full, fp16, checkpointing": {"checkpointing": True},
    "full, fp32": {"precision": "fp32"}, "full, fp32, checkpointing": {"precision": "fp32", "checkpointing": True},
    "LoRA 16, fp16": {"rank": 16}, "LoRA 16, fp16, checkpointing": {"rank": 16, "checkpointing": True},
    "DoRA 16, fp16": {"rank": 16, "dora": True},
    "DoRA 16, fp16, checkpointing": {"rank": 16, "dora": True, "checkpointing": True},
}  # fmt: skip


def counted() -> dict[str, Any]:
    """GB an image of the public architectures."""
    found: dict[str, Any] = {}
    for name, (config, pixels) in TRUE.items():
        found[name] = {}
        for case, options in COUNTED.items():
            each = activations(config, pixels, **{"precision": "fp16", **options})
            found[name][case] = round(each / 1e9, 4)
            print(f"{name:18} {case:30} {each / 1e9:6.3f} GB an image", flush=True)
    return found


def architecture(shape: str, cases: list[Case]) -> Architecture:
    """A small network as the tables would have it, as far as these cases need them: the rest is no number."""
    config, pixels = SHAPES[shape]
    each = dict.fromkeys(((half, light) for half in ("bf16", "fp32") for light in (False, True)), math.nan)
    for precision, light in {(case.precision, case.checkpointing) for case in cases}:
        each[precision, light] = activations(config, pixels, precision=precision, checkpointing=light) / 1e9
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        count = sum(one.numel() for one in UNet2DConditionModel(**config).parameters())
    pooled = config["projection_class_embeddings_input_dim"] - 6 * 8 if "addition_embed_type" in config else 0
    return Architecture(
        shape, count, pixels, 0, 0, 0, encoders_gb=0, latent=4 * (pixels // 8) ** 2,
        text=77 * config["cross_attention_dim"] + pooled, share=1, share_of_one=1,
        activations_gb=each["bf16", False], checkpointed_gb=each["bf16", True], selective_gb=math.nan,
        wide_gb=each["fp32", False], wide_checkpointed_gb=each["fp32", True],
    )  # fmt: skip


def workload(case: Case, trainable: int | None) -> Workload:
    return Workload(
        pairs=0, passes_per_pair=0, encoded=0, sampling_passes=0, samples=0, diagnosis_passes=0, scoring_tflop=0,
        judging_tflop=0, micro_batch=case.micro, levels=1, share_of_device=PAIRS, precision=case.precision,  # type: ignore[arg-type]
        checkpointing=case.checkpointing, trainable=trainable, average=case.ema,
        state_bytes=state_bytes(OPTIMISERS[case.optimiser]()), reference=case.reference, dora=case.dora,
        shadow=case.shadow, window=case.window,
    )  # fmt: skip


def measured(shape: str, network: Architecture, case: Case, device: torch.device) -> dict[str, Any]:
    """The peak of two updates beside its estimate, in MB."""
    watch = Live() if device.type == "cpu" else None
    if watch is None:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
    else:
        watch.__enter__()
    try:
        one = session(shape, case, OPTIMISERS[case.optimiser](), device=device, pairs=PAIRS)
        trainable = sum(p.numel() for p in one.parameters)
        if watch is None:
            torch.cuda.reset_peak_memory_stats()
        else:
            watch.restart()
        for _ in fit(one):
            pass
        peak = torch.cuda.max_memory_allocated() - before if watch is None else watch.peak
    finally:
        if watch is not None:
            watch.__exit__(None, None, None)
    work = workload(case, None if case.rank is None else trainable)
    parts = {name: round(value * 1e3, 3) for name, value in memory_parts(network, work).items() if value}
    estimate = memory_gb(network, work) * 1e9
    return {
        "case": case.name,
        "measured_mb": round(peak / 1e6, 2),
        "estimated_mb": round(estimate / 1e6, 2),
        "ratio": round(estimate / peak, 3),
        "parts_mb": parts,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--only", choices=["counted", "measured"], help="leave the other part of the file as it is"
    )
    add_arguments(parser)
    options = parser.parse_args(words)
    device = torch.device(options.device)
    file = target(options, "memory.json" if device.type == "cpu" else "memory_cuda.json")
    result = json.loads(file.read_text()) if file.is_file() else {}
    result |= {"machine": machine(device), "seed": 0}
    if options.only != "measured" and not options.quick:
        result["counted_gb_per_image"] = counted()
    if options.only != "counted":
        shapes = ["SDXL in small"] if options.quick else list(SHAPES)
        cases = [Case(checkpointing=True, micro=4)] if options.quick else CASES
        result["measured"] = {shape: table(shape, cases, device) for shape in shapes}
    write(file, result)


def table(shape: str, cases: list[Case], device: torch.device) -> dict[str, Any]:
    network = architecture(shape, cases)
    rows = []
    for case in cases:
        row = measured(shape, network, case, device)
        rows.append(row)
        print(
            f"{shape:16} {row['case']:44} {row['measured_mb']:7.2f} MB, estimate x {row['ratio']:.2f}",
            flush=True,
        )
    return {"parameters": network.parameters, "cases": rows}


if __name__ == "__main__":
    main()
