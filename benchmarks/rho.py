"""How alike a pair's gradients are at two timesteps on the plane: `smpo measure rho`, with machine and versions.

python benchmarks/rho.py            # seconds; writes benchmarks/results/rho_plane.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from speed.measure import machine

HERE = Path(__file__).parent
SPEC = HERE.parent / "experiments" / "plane_smpo.yaml"

if __name__ == "__main__":
    words = [sys.executable, "-m", "smpo.cli.main", "measure", "rho", str(SPEC), "--pairs", "128", "--json"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    torch.set_num_threads(1)
    body = {"spec": SPEC.name, "seed": 0, "machine": machine(torch.device("cpu")), "found": json.loads(said)}
    (HERE / "results" / "rho_plane.json").write_text(json.dumps(body, indent=1) + "\n")
