"""Small sweeps, and a stand-in for the process of a trial that needs neither torch nor seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from smpo.app.sweep.request import ResolvedSweep, SweepRequest, resolve_sweep
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve

BASE = """\
name: small
model: plane
data: {use: plane-pairs, limit: 200}
reward: plane-radius
objective: {use: smpo, beta: 500}
smoothing: likelihood
inversion: {use: renoise, steps: 4, by: reference}
train: {steps: 4, batch: 16, lr: 1e-4}
evaluate:
  prompts: {use: plane-prompts, repeats: 4}
  rewards: [plane-radius, plane-on-axis]
  guidance: 3
  steps: 6
runtime: {threads: 1, tracking: none}
"""
SWEEP = """\
sweep:
  maximise: eval/plane-radius/gain
  search:
    objective.beta: {log: [100, 5000]}
    train.lr: {log: [1e-6, 1e-3]}
    smoothing:
      choice:
        - hard
        - use: label
          search: {epsilon: {uniform: [0.0, 0.3]}}
        - use: likelihood
          search: {temperature: {log: [0.1, 10]}}
"""
FAKE = Path(__file__).parent / "fake_trial.py"


def write(folder: Path, sweep: str = SWEEP, base: str = BASE, name: str = "small.yaml") -> Path:
    file = folder / name
    file.write_text(base + sweep, encoding="utf-8")
    return file


def small(folder: Path, sweep: str = SWEEP, *, sets: tuple[str, ...] = (), **wish: Any) -> ResolvedSweep:
    """A prepared sweep whose runs are under `folder`."""
    place = (f"runtime.runs={folder / 'runs'}", f"runtime.cache={folder / 'cache'}")
    return resolve_sweep(SweepRequest(write(folder, sweep), sets=(*place, *sets), fork=False, **wish))


def resolved(file: Path, trial: Any = None) -> Resolved[ExperimentSpec]:
    return resolve(file, skeleton=ExperimentSpec, trial=trial or {})


def start_fake(order: Path, log: Path, environment: Any) -> subprocess.Popen[bytes]:
    """In the place of `smpo.app.sweep.workers.forkserver.fresh_process`."""
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, str(FAKE), str(order)], stdout=file, stderr=file)


class Quiet:
    """A screen that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note

    def show(self, trials: Any, running: Any, counts: Any) -> None:
        pass
