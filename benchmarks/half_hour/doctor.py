"""The machine before anything is measured: what `smpo doctor` finds, the card, its clocks, its ceilings, all versions.

python -m half_hour.doctor --device cuda --out doctor.json
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from output import write
from speed.card import clocks
from speed.ceilings import ceilings
from speed.measure import machine

from smpo.app.checks.machine import checkup, worst

PACKAGES = (
    "smpo", "torch", "triton", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "mlflow",
    "optuna", "pytest",
)  # fmt: skip
VARIABLES = ("CUDA_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    device = torch.device(options.device)
    checks = checkup(Path("runs"))
    found: dict[str, Any] = {
        "machine": machine(device),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "worst": worst(checks),
        "checks": [{key: _without_paths(text) for key, text in check.to_dict().items()} for check in checks],
    }
    write(options.out, found)
    for check in checks:
        print(f"{check.state:8} {check.name:10} {check.message}")
    found["clocks"] = {"start": clocks(device)}
    half = torch.bfloat16 if device.type == "cuda" else None
    found["ceilings"] = ceilings(device, half)
    found["clocks"]["after the ceilings"] = clocks(device)
    write(options.out, found)
    print("ceilings ", "  ".join(f"{name} {value:.4g}" for name, value in found["ceilings"].items()))


def _without_paths(text: str) -> str:
    """Results are published, and the folders of a machine are private."""
    for path, name in ((sys.executable, "python"), (str(Path.cwd()), "."), (str(Path.home()), "~")):
        text = text.replace(path, name)
    return text


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
