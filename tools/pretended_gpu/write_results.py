"""Run the matrix of settings and write benchmarks/results/pretended_gpu.json; two minutes.

    nox -s pretended_gpu_results      # builds the environment, runs this, and fills the table of docs/devices.md

Beside the peaks of each training stands the estimate of `smpo plan`. The small model isn't one of the plan's
architectures: its activations are counted as those of benchmarks/memory.py are, on meta tensors.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from tools.pretended_gpu.matrix import Matrix, Outcome, lines  # noqa: E402
from tools.pretended_gpu.small_plan import plan_for_the_small_model, planned  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "pretended_gpu.json"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "bitsandbytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="lines that contain these words; nothing is written")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    plan_for_the_small_model()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(Path(folder))
        for line in [line for line in lines() if options.only in line]:
            outcome = matrix.run(line)
            outcome.planned = planned(line)
            print(_in_words(outcome), flush=True)
            rows.append(outcome)
    failed = sum(not one.passed for one in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    if not options.only:
        report = {"machine": _machine(), "seed": 0, "settings": [_row(one) for one in rows]}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(failed > 0)


def _machine() -> dict[str, Any]:
    import torch

    return {
        "device": f"{torch.cuda.get_device_name()}, compute capability {torch.cuda.get_device_capability()}",
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _row(outcome: Outcome) -> dict[str, Any]:
    """Without seconds and paths, which differ from machine to machine."""
    row = outcome.to_dict()
    del row["seconds"]
    return {**row, "error": [one.replace(f"{ROOT}/", "") for one in row["error"]]}


def _in_words(outcome: Outcome) -> str:
    update = outcome.update
    counts = f"{update.launches:6d} launches {update.waits:4d} waits an update" if update else ""
    peak = f"{(outcome.training_allocated - outcome.workspaces) / 1e6:6.1f} MB"
    peak += f", plan {outcome.planned / 1e6:6.1f}" if outcome.planned else ""
    first = f"{'ok' if outcome.passed else 'FAILED':6s} {outcome.seconds:4.0f}s {counts} {peak}  {outcome.settings}"
    return "\n".join([first, *(f"         {one}" for one in outcome.error)])


if __name__ == "__main__":
    sys.exit(main())
