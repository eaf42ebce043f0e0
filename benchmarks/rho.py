"""How alike a pair's gradients are at two timesteps, in the plane and on pictures: `smpo measure rho`, with machine and
versions.

python benchmarks/rho.py            # two minutes; writes benchmarks/results/rho_{plane,shapes}.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from speed.measure import machine

HERE = Path(__file__).parent
WORLDS = {"plane": ("plane_smpo.yaml", 128), "shapes": ("quickstart.yaml", 96)}
"""Spec and pairs."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    for world, (spec, pairs) in WORLDS.items():
        words = ["measure", "rho", str(HERE.parent / "experiments" / spec), "--pairs", str(pairs), "--json"]
        command = [sys.executable, "-m", "smpo", *words]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        body = {"spec": spec, "seed": 0, "machine": machine(torch.device("cpu")), "found": json.loads(said)}
        (HERE / "results" / f"rho_{world}.json").write_text(json.dumps(body, indent=1) + "\n")
