"""How many operators of torch policy and reference run, and whether they are the same: published sizes, each precision.

    python benchmarks/operators.py             # on a GPU, or on a pretended one (`nox -s pretended_gpu`): two minutes
    python benchmarks/operators.py --small     # narrow networks on a CPU: half a minute

An operator counts with its arguments: of tensors dtype, shape and strides. Views, casts and empty tensors aren't
counted. An adapter's policy runs more: its own, between those of the reference. tests/pretended/test_operators.py
compares more settings.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from quickstart import machine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from smpo.engine.monitoring.operators import first_difference  # noqa: E402
from smpo.families.lora import Adapter  # noqa: E402
from tests.families.operators import SMALL, denoiser, traces  # noqa: E402
from tests.families.published import SD15, SDXL  # noqa: E402

PRECISIONS = ("fp32", "fp16", "bf16")


def compared(config: dict[str, Any], device: str, precision: str, adapter: Adapter | None) -> dict[str, Any]:
    """Operators of the policy with gradients, those of the reference, and the first difference."""
    found = traces(denoiser(config, device, precision, adapter=adapter))
    policy, reference = found["policy"], found["reference"]
    equal = first_difference(policy, reference) is None if adapter else policy == reference
    return {
        "policy": len(policy),
        "reference": len(reference),
        "equal": equal,
        "first_difference": first_difference(policy, reference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = "cpu" if options.small else "cuda"
    sizes = (SMALL["sd15"], SMALL["sdxl"]) if options.small else (SD15, SDXL)
    archs = {"sd15": (sizes[0], None), "sdxl": (sizes[1], None), "sdxl, LoRA": (sizes[1], Adapter(rank=8))}
    rows = []
    for name, (config, adapter) in archs.items():
        for precision in PRECISIONS:
            rows.append(
                {
                    "network": name,
                    "precision": precision,
                    **compared(config, device, precision, adapter),
                }
            )
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    about = machine()
    about["device"] = "cpu" if options.small else torch.cuda.get_device_name()
    if options.out or not options.small:
        out = options.out or HERE / "results" / "operators.json"
        out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    raise SystemExit(not all(row["equal"] for row in rows))


if __name__ == "__main__":
    main()
