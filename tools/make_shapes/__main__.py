"""Make the shapes world's weights from nothing: autoencoder, base, voted pairs, reward.

    python -m tools.make_shapes --work FOLDER

About 45 minutes of one core. Each stage runs in a process of its own with one thread, and leaves a mark when it has
ended, so that the command goes on where it was stopped. What ships is then in `FOLDER/weights`.

The arithmetic is deterministic on one machine. Another processor may round bfloat16 otherwise, and then gives weights
that are as good and not the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["STAGES", "Stage", "make"]


@dataclass(frozen=True)
class Stage:
    """One maker and its arguments; paths are relative to the work folder."""

    name: str
    maker: str
    words: str

    def command(self) -> list[str]:
        return [sys.executable, "-m", f"tools.make_shapes.{self.maker}", *self.words.split()]


STAGES = (
    Stage("autoencoder", "vae", "--out vae --steps 5000"),
    Stage("base", "base", "--vae vae --out base --steps 10500"),
    Stage("training pairs", "pairs", "--base base --seed 2 --steps 900 --out train.parquet"),
    Stage("votes for the reward", "pairs", "--base base --seed 1 --steps 2400 --out votes.parquet"),
    Stage("tuning pairs", "pairs", "--base base --seed 3 --steps 320 --split tuning --out tuning.parquet"),
    Stage("reward on renders", "reward", "--out reward1 --steps 1800"),
    Stage(
        "reward on votes",
        "reward",
        "--start reward1 --pairs votes.parquet --out reward --steps 700 --lr 4e-4",
    ),
)
"""In order. The votes that taught the reward are not the shipped pairs, and the tuning pairs taught nothing."""

SHIPPED = {"base": "base", "reward": "reward", "train.parquet": "pairs/train.parquet"}

# Two threads that compete are many times slower than one; glibc's default returns big buffers at every step.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}


def make(work: Path, stages: Sequence[Stage] = STAGES) -> Path:
    """Run what has not ended yet; return the folder of what ships. Raises `CalledProcessError` when a stage fails."""
    marks = work / "ended"
    marks.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        mark = marks / stage.name.replace(" ", "-")
        if mark.exists():
            continue
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(_import_path())}
        subprocess.run(stage.command(), check=True, cwd=work, env=environment)
        mark.touch()
    weights = work / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    for source, target in SHIPPED.items():
        (weights / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (work / source).is_dir() else shutil.copy
        copy(work / source, weights / target)
    return weights


def _import_path() -> list[str]:
    """The checkout, so that a stage in the work folder finds `tools`, and the caller's own path."""
    checkout = Path(__file__).resolve().parents[2]
    return [str(checkout), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the shapes world's weights from nothing.")
    parser.add_argument("--work", type=Path, default=Path("shapes-world"), help="folder for all stages")
    sys.stdout.write(f"{make(parser.parse_args().work)}\n")
