"""How much of a GPU's memory a training takes: what `smpo plan` predicts against what torch's allocator did.

    python benchmarks/memory.py                     # trains CASES and PRESETS at true size, for a few micro-batches
    python benchmarks/memory.py --only "SDXL, LoRA" sdxl_smpo_24gb
    python benchmarks/memory.py --count             # writes smpo/app/plan/activations.json, from which plans are made
    python benchmarks/memory.py --quick             # one case; on a CPU the plans alone

It needs torch with CUDA, on a GPU or on a pretended one (tools/pretended_gpu): there the allocator is the real one and
no kernel runs, so that what cuDNN takes for itself isn't seen. smpo's own loop runs on networks of the true size with
empty weights. Timesteps are 0 or 1, where an inversion takes a single hop: longer ones take no more memory. Peaks are
those of a second update, in which the optimiser has its state, up to the micro-batches behind a second window.

*allocated* is what tensors held at most, *reserved* what the allocator had taken from the device for that. A preset
trains on a pretended card of its size, half a GB of which a CUDA context would take. Results are written to
benchmarks/results/pretended_memory.json, on a GPU to memory_cuda.json; docs/models.md has the tables.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from output import add_arguments, target, write
from speed.measure import machine
from speed.true_size import policy, training

from smpo.api import load, plan
from smpo.app.build.allocator import prefer_expandable_segments
from smpo.engine import loop
from smpo.families.lora import ATTENTION, Adapter
from smpo.families.policy_reference import HALF
from smpo.families.recompute import checkpoint

ACTIVATIONS = Path(__file__).parents[1] / "smpo" / "app" / "plan" / "activations.json"
CONTEXT = 0.5
"""GB that a CUDA context takes."""
QUICK = ["train.t_min=0", "train.t_max=1"]
CASES: dict[str, tuple[str, list[str]]] = {
    "SDXL, checkpointing": ("sdxl_smpo", ["train.batch=64"]),
    "SDXL, selective, shadow": (
        "sdxl_smpo",
        ["train.batch=64", "runtime.gradient_checkpointing=selective", "runtime.shadow_weights=true"],
    ),
    "SDXL, AdamW, EMA": ("sdxl_smpo", ["train.batch=64", "train.optimiser=adamw", "train.ema=0.99"]),
    "SDXL, everything kept, micro-batch 1": (
        "sdxl_smpo",
        [
            "train.batch=64",
            "runtime.micro_batch=1",
            "runtime.window=8",
            "runtime.gradient_checkpointing=false",
        ],
    ),
    "SDXL, LoRA": (
        "sdxl_smpo",
        ["model={use: sdxl, lora: {rank: 16}}", "train.optimiser=adamw", "runtime.window=32"],
    ),
    "SD 1.5": ("sd15_smpo", ["runtime.window=128"]),
    "SD 1.5, fp32": (
        "sd15_smpo",
        ["train.batch=64", "train.precision=fp32", "runtime.gradient_checkpointing=false"],
    ),
    "SD 1.5, offloaded reference": (
        "sd15_smpo",
        [
            "train.batch=64",
            "runtime.offload_reference=true",
            "runtime.micro_batch=4",
            "runtime.inversion_batch=32",
        ],
    ),
}
"""Name -> a spec, and what is set in it."""
PRESETS = {f"{arch}_smpo_{card}gb": card for arch in ("sdxl", "sd15") for card in (24, 48, 80, 141)}
"""Shipped specs, and the cards that they are for."""
GPU = {24: "24 GB (RTX 4090)", 48: "48 GB (L40S)", 80: "H100", 141: "H200"}


class _Enough(Exception):
    """The update has gone on for as long as memory changes."""


def measured(name: str, sets: list[str]) -> dict[str, Any]:
    """Peaks of a spec's training beside its plan, in GB."""
    resolved = load(name, [*sets, *QUICK])
    found, device = plan(resolved), torch.device("cuda")
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    session = training(resolved.spec, device)
    loading = _peaks(before)
    torch.cuda.reset_peak_memory_stats()
    _two_updates(session)
    peaks = _peaks(before)
    memory = found.memory
    assert memory is not None and session.micro_batcher.pairs is not None
    return {
        "fits": not session.micro_batcher.short,
        "allocated_gb": peaks[0], "planned_allocated_gb": round(memory.allocated_gb, 3),
        "reserved_gb": peaks[1], "planned_reserved_gb": round(memory.reserved_gb, 3),
        "loading_gb": loading[0],
        "allocated_ratio": round(memory.allocated_gb / peaks[0], 4),
        "reserved_ratio": round(memory.reserved_gb / peaks[1], 4),
        "parts_gb": {part: round(value, 3) for part, value in memory.parts.items() if value},
    }  # fmt: skip


def _peaks(before: int) -> tuple[float, float]:
    return (
        round((torch.cuda.max_memory_allocated() - before) / 1e9, 3),
        round((torch.cuda.max_memory_reserved() - before) / 1e9, 3),
    )


FEW = 3
"""Micro-batches of a window that are trained: a fourth takes no more memory."""


def _two_updates(session: loop.Session) -> None:
    """A first one of two micro-batches, so that the optimiser has its state; of the second as much as matters."""
    batches, backward, parts = session.batches, torch.Tensor.backward, loop.parts
    windows = 1 if session.window is None else 2
    done = 0

    def counted(tensor: torch.Tensor, *given: Any, **named: Any) -> None:
        nonlocal done
        backward(tensor, *given, **named)
        done += 1
        if done >= 2 + FEW * windows:
            raise _Enough

    def some(step: int) -> Any:
        for number, batch in enumerate(batches(step)):
            if step or number < 2:
                yield batch

    session.batches, session.steps = some, 2
    torch.Tensor.backward = counted  # type: ignore[method-assign]
    loop.parts = lambda noisy, pairs: islice(parts(noisy, pairs), FEW)
    try:
        for _ in loop.fit(session):
            pass
    except _Enough:
        pass
    finally:
        torch.Tensor.backward, loop.parts = backward, parts  # type: ignore[method-assign]


# ---- what a pass takes, by images -----------------------------------------------------------------------------------

NETWORKS = {
    "SD 1.5 at 512 px": ("sd15", 64),
    "SDXL at 1024 px": ("sdxl", 128),
    "SDXL at 512 px": ("sdxl", 64),
}
LAYERS = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
TRAINED: dict[str, Adapter | None] = {
    "whole": None,
    "LoRA on attention": Adapter(rank=16, alpha=16),
    "LoRA on all layers": Adapter(rank=16, alpha=16, targets=LAYERS),
    "DoRA on attention": Adapter(rank=16, alpha=16, dora=True),
}
KEPT = {"everything": False, "selective": "selective", "checkpoints": True}


def counted() -> dict[str, Any]:
    """By architecture: GB an image of a pass without gradients, and of forward and backward with them, by what is
    trained, what is kept and the precision; the smaller numbers that `smpo.app.plan.gpu_memory` needs beside."""
    return {name: counted_for(arch, side) for name, (arch, side) in NETWORKS.items()}


def counted_for(arch: str, side: int) -> dict[str, Any]:
    """`counted` of one architecture, with latents of `side`."""
    found: dict[str, Any] = {"plain": {}}
    for trained, adapter in TRAINED.items():
        for kept, how in KEPT.items():
            for precision in ("bf16", "fp32"):
                plain, *lines = _lines(arch, side, adapter, how, precision)
                bits = "32" if precision == "fp32" else "16"
                found["plain"].setdefault(bits, plain[0])
                found.setdefault(trained, {}).setdefault(kept, {})[bits] = lines
                print(f"{arch} {side} {trained}, {kept}, {bits} bits: {lines}", flush=True)
    return found | _weights(arch)


def _lines(arch: str, side: int, adapter: Adapter | None, how: Any, precision: str) -> list[list[float]]:
    """`[GB an image, GB beside]` of a pass without gradients, and of forward and backward of one with them."""
    half = HALF.get(precision)
    unet, _ = policy(arch, torch.device("cuda"), half, adapter, hold=False)
    checkpoint(unet, how)
    _passes(unet, side, 2, half)  # leaves gradients behind
    few, many = (_passes(unet, side, images, half) for images in (2, 6))
    del unet
    gc.collect()
    torch.cuda.empty_cache()
    each = [(b - a) / 4 for a, b in zip(few, many, strict=True)]
    return [[round(k / 1e9, 4), round(max(0, a - 2 * k) / 1e9, 4)] for a, k in zip(few, each, strict=True)]


def _passes(unet: Any, side: int, images: int, half: torch.dtype | None) -> tuple[int, int, int]:
    """Highest bytes over what was there before."""
    config, cuda = unet.config, torch.device("cuda")
    t = torch.zeros(images, device=cuda)
    x = torch.empty(images, config.in_channels, side, side, device=cuda)
    told: dict[str, Any] = {"encoder_hidden_states": torch.empty(images, 77, config.cross_attention_dim, device=cuda)}
    if config.addition_embed_type:
        pooled, ids = torch.empty(images, 1280, device=cuda), torch.empty(images, 6, device=cuda)
        told["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
    before = torch.cuda.memory_allocated()

    def autocast() -> torch.autocast:
        return torch.autocast("cuda", dtype=half or torch.bfloat16, enabled=half is not None)

    def peak() -> int:
        highest = torch.cuda.max_memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        return highest

    peak()
    with torch.no_grad(), autocast():
        unet(x, t, **told, return_dict=False)[0].float()
    plain = peak()
    with autocast():
        output = unet(x, t, **told, return_dict=False)[0]
    loss = output.float().sum()
    forward = peak()
    loss.backward()
    return plain, forward, peak()


def _weights(arch: str) -> dict[str, float]:
    """GB: an offloaded reference's part on the device, by precision; Adafactor's state of the whole network, which has
    rows and columns of the last two sides of each tensor: of a kernel of 3 x 3 two thirds of its numbers."""
    from smpo.families.offload import resident_bytes

    found, meta = {}, torch.device("meta")
    for bits, half in (("16", torch.bfloat16), ("32", None)):
        unet, reference = policy(arch, meta, half, None, hold=True)
        assert reference is not None
        found[f"offloaded {bits}"] = resident_bytes(reference)
    shapes = [p.shape for p in unet.parameters()]
    found["adafactor"] = 4 * sum(
        shape[:-1].numel() + (shape[:-2] + shape[-1:]).numel() if len(shape) > 1 else shape.numel() for shape in shapes
    )
    return {name: round(size / 1e9, 4) for name, size in found.items()}


# ---- command line ---------------------------------------------------------------------------------------------------


def planned(name: str, sets: list[str]) -> dict[str, Any]:
    """GB of a spec, as users see them, and with presets what they set."""
    resolved = load(name, sets)
    found = plan(resolved)
    memory, runtime = found.memory, resolved.spec.runtime
    assert memory is not None
    row: dict[str, Any] = {
        "plan": {
            "allocated_gb": round(memory.allocated_gb, 3), "reserved_gb": round(memory.reserved_gb, 3),
            "card_gb": memory.card_gb,
        },
    }  # fmt: skip
    if name in PRESETS:
        kept = {False: "nothing", True: "blocks", "selective": "cheap operators"}
        flags = ("offload_reference", "shadow_weights")
        row["settings"] = {
            "trains": "a LoRA" if resolved.spec.model.facts().adapter else "the whole UNet",
            "micro_batch": runtime.micro_batch,
            "inversion_batch": runtime.inversion_batch,
            "computed again": kept[runtime.gradient_checkpointing],
            "besides": [flag for flag in flags if getattr(runtime, flag)],
        }
        (on,) = (one for one in found.gpus if one.gpu == GPU[PRESETS[name]])
        row["seconds_per_pair"] = {on.gpu: round(on.seconds_per_pair, 3)}
    return row


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=here, choices=["cpu", "cuda"])
    parser.add_argument("--count", action="store_true", help="what a pass takes, by images")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="cases and presets")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    add_arguments(parser)
    options = parser.parse_args(words)
    if unknown := set(options.only or ()) - {*CASES, *PRESETS}:
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join((*CASES, *PRESETS))}")
    return options


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    specs = {**CASES, **{name: (name, list[str]()) for name in PRESETS}}
    if options.case is not None:
        prefer_expandable_segments()
        print(json.dumps(measured(*specs[options.case])))
        return
    said = machine(torch.device(options.device))
    if options.count:
        prefer_expandable_segments()
        write(ACTIVATIONS, {"counted_with": said, "gb_per_image": counted()})
        return
    pretended = options.device == "cpu" or "Pretended" in torch.cuda.get_device_name()
    file = target(options, "pretended_memory.json" if pretended else "memory_cuda.json")
    names = ["SD 1.5"] if options.quick else options.only or list(specs)
    found = json.loads(file.read_text()) if file.is_file() else {}
    found |= {"machine": said}
    for name in names:
        row: dict[str, Any] = {"spec": specs[name][0], "sets": specs[name][1], **planned(*specs[name])}
        if options.device == "cuda":
            try:
                row |= apart(name)
            except subprocess.CalledProcessError as error:  # of which the reason is on stderr
                row["error"] = f"its process ended with exit status {error.returncode}"
        found.setdefault("presets" if name in PRESETS else "cases", {})[name] = row
        write(file, found)
        print(name, row, flush=True)


def apart(name: str) -> dict[str, Any]:
    """`measured`, in a process that has the card for itself."""
    size = {"PRETENDED_GB": f"{PRESETS[name] - CONTEXT}"} if name in PRESETS else {}
    words = [sys.executable, __file__, "--case", name]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **size})
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
