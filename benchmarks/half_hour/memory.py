"""What SDXL and SD 1.5 hold in training on a card, and what `smpo plan` says they do.

    python -m half_hour.memory --device cuda --out memory.json

Each case is a spec's settings. The estimate is `smpo plan`'s for experiments/{sdxl,sd15}_smpo.yaml with them; measured
are two updates of smpo's loop on networks of random weights, with autoencoder and text encoders beside them: the
allocator's highest allocated and reserved memory. Written after each case; one that doesn't fit is left out.
"""

from __future__ import annotations

import argparse
import gc
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from output import write
from speed.archs import encoders
from speed.live import Live
from speed.measure import machine
from speed.small import session

from smpo.app.plan import make_plan
from smpo.engine.loop import fit
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SLACK = 0.95
"""Share of the card's memory that an estimate may fill; the CUDA context needs the rest."""


@dataclass(frozen=True)
class Case:
    """One training; fields as in a spec."""

    micro: int
    checkpointing: bool | Literal["selective"] = False
    shadow: bool = False
    optimiser: str = "adamw"
    precision: str = "bf16"
    rank: int | None = None
    ema: bool = False
    window: int | None = None
    reference: bool = True
    dora: bool = False

    @property
    def settings(self) -> list[str]:
        """As `--set` has them."""
        said = {
            "train.batch": 2 * self.micro, "train.precision": self.precision, "train.optimiser": self.optimiser,
            "runtime.micro_batch": self.micro, "runtime.gradient_checkpointing": str(self.checkpointing).lower(),
            "runtime.shadow_weights": str(self.shadow).lower(), "inversion.steps": 1,
        }  # fmt: skip
        if self.rank is not None:
            said["model.lora"] = f"{{rank: {self.rank}}}"
        if self.ema:
            said["train.ema"] = 0.99
        return [f"{name}={value}" for name, value in said.items()]


CASES = {
    "sdxl": [
        Case(4, shadow=True), Case(8, "selective", shadow=True), Case(4, True), Case(1, ema=True),
        Case(4, True, optimiser="adafactor"), Case(4, True, rank=16),
    ],
    "sd15": [Case(16, shadow=True), Case(16, "selective", shadow=True), Case(4, precision="fp32"), Case(16, rank=16)],
}  # fmt: skip
"""The first of each is the preset for a card of 141 GB."""


def measured(arch: str, case: Case, device: torch.device, *, small: bool) -> dict[str, float]:
    """GB (10^9 bytes) at the peak of two updates: allocated and reserved; on a CPU, bytes of live tensors."""
    from smpo.components.optimisers import Adafactor, AdamW

    shape = {"sdxl": "SDXL in small", "sd15": "SD 1.5 in small"}[arch] if small else arch
    cuda = device.type == "cuda"
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    with nullcontext() if cuda else Live() as live:
        with device:
            beside = encoders(arch, tiny=small)
        optimiser = {"adamw": AdamW, "adafactor": Adafactor}[case.optimiser]()
        one = session(shape, case, optimiser, device=device, pairs=2 * case.micro)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in fit(one):
            pass
    del one, beside
    if live is not None:
        return {"allocated_gb": live.peak / 1e9}
    return {
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


def planned(arch: str, case: Case) -> float:
    """GB that `smpo plan` estimates."""
    resolved = resolve(EXPERIMENTS / f"{arch}_smpo.yaml", skeleton=ExperimentSpec, sets=case.settings)
    return make_plan(resolved).gpus[0].memory_gb


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--arch", choices=list(CASES), help="this one alone")
    parser.add_argument(
        "--quick", action="store_true", help="one small network: shows that it works, measures nothing"
    )
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    device = torch.device(options.device)
    total = torch.cuda.mem_get_info(device)[1] / 1e9 if device.type == "cuda" else float("inf")
    found: dict[str, Any] = {"machine": machine(device), "seed": 0, "small": options.quick, "cases": []}
    for arch, cases in CASES.items():
        if options.arch not in (None, arch):
            continue
        for case in [Case(2, True, precision="fp32")] if options.quick else cases:
            row: dict[str, Any] = {"arch": arch, "settings": case.settings, "plan_gb": planned(arch, case)}
            if row["plan_gb"] > SLACK * total and not options.quick:
                row["error"] = f"the estimate doesn't fit into {total:.0f} GB"
            else:
                row |= _tried(arch, case, device, small=options.quick)
            found["cases"].append(row)
            write(options.out, found)
            print(
                arch, " ".join(case.settings), {k: v for k, v in row.items() if k not in ("arch", "settings")}
            )


def _tried(arch: str, case: Case, device: torch.device, *, small: bool) -> dict[str, Any]:
    try:
        return measured(arch, case, device, small=small)
    except Exception as error:  # the other cases are worth having
        return {"error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
