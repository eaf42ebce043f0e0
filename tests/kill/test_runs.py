"""`smpo run`, killed again and again: resumed by the same command, it ends bitwise where an uninterrupted run does."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kill.driver import PHASES
from tests.kill.record import left_by, mirrored

SPEC = """\
name: tiny
model: plane
data: {use: plane-pairs, limit: 240}
reward: plane-radius
objective: {use: smpo, beta: 500}
smoothing: likelihood
inversion: {use: renoise, steps: 4, by: policy}
train: {steps: 12, batch: 16, lr: 1e-3, warmup: 4, ema: 0.9, holdout: 24}
evaluate:
  prompts: {use: plane-prompts, repeats: 3}
  rewards: [plane-radius, plane-on-axis]
  guidance: 3
  steps: 6
runtime:
  threads: 1
  micro_batch: 8
  encode_batch: 64
  checkpoint_every: 2
  keep_best: margin
  diagnose_every: 3
  preview_every: 4
"""
ORDER = tuple(PHASES)
NTH = {"loading": 1, "scoring": 8, "caching": 3, "training": 24, "reporting": 30, "looking at held-out pairs": 5,
       "previewing": 3, "checkpointing": 6, "dropping old checkpoints": 6, "sampling": 6, "calling MLflow": 40,
       "noting what MLflow has": 20}  # fmt: skip
"""How often a phase begins in an uninterrupted run, about; others begin once."""

FAULT = pytest.mark.fault(
    "kill",
    "SIGKILL of `smpo run`, in every phase",
    "resumed, it ends bit for bit where an uninterrupted one does: weights, optimiser, log; one MLflow run, each "
    "point once",
)


def moments(number: int, lot: random.Random) -> list[dict[str, Any]]:
    """Where to kill: every phase about as often, at its beginning, in it or at its end; in a likely order."""
    drawn = [(ORDER * number)[place] for place in lot.sample(range(len(ORDER)), k=len(ORDER))] * number
    plans = []
    for phase in drawn[:number]:
        after = lot.choice([0.0, -1.0, lot.uniform(0, 0.01), lot.uniform(0, 0.05)])
        plans.append({"phase": phase, "nth": lot.randint(1, NTH.get(phase, 1)), "after": after})
    return sorted(plans, key=lambda plan: (ORDER.index(plan["phase"]), plan["nth"]))


def smpo(folder: Path, plan: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.kill.driver", json.dumps({"slow": True, **plan}), *words],
        cwd=folder, capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run leaves when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "tiny.yaml").write_text(SPEC)
    said = smpo(folder, {}, "run", "tiny.yaml", "-q", "--resume")
    assert said.returncode == 0, said.stderr
    (run,) = folder.glob("runs/tiny/*-1")
    return left_by(run), mirrored(folder / "runs/mlflow.db")


def torment(folder: Path, plans: list[dict[str, Any]]) -> list[str]:
    """Kill as planned and go on, then let it finish; returns the phases in which it died."""
    (folder / "tiny.yaml").write_text(SPEC)
    died = []
    for plan in [*plans, {}, {}]:
        said = smpo(folder, plan, "run", "tiny.yaml", "-q", "--resume")
        if said.returncode == -signal.SIGKILL:
            assert said.stderr.endswith("killed\n") and "Traceback" not in said.stderr
            died.append(plan["phase"])
        elif said.returncode == 1:
            assert "this experiment was run before" in said.stderr, said.stderr
            break
        else:
            assert said.returncode == 0, said.stderr
    return died


def compare(folder: Path, straight: tuple[dict[str, Any], dict[str, Any]]) -> None:
    (run,) = folder.glob("runs/tiny/*-*")
    found, expected = left_by(run), straight[0]
    for part, value in expected.items():
        assert found[part] == value, f"{part} differs"
    shown = mirrored(folder / "runs/mlflow.db")
    for part, value in straight[1].items():
        if part == "curves":
            for key in value[0]:
                assert shown["curves"][0].get(key) == value[0][key], f"the curve {key} differs in MLflow"
        assert shown[part] == value, f"{part} differ in MLflow"


@pytest.mark.fault(
    "kill",
    "SIGKILL of `smpo run`",
    "resumed, it ends bit for bit where an uninterrupted one does; one MLflow run, each point once",
)
def test_a_few_kills(tmp_path, straight, record_property):
    died = torment(tmp_path, moments(4, random.Random(1)))
    assert len(died) >= 3, died
    compare(tmp_path, straight)
    record_property("injected", len(died))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.fault(
    "kill",
    "SIGKILL of `smpo run`",
    "resumed, it ends bit for bit where an uninterrupted one does; one MLflow run, each point once",
)
def test_many_kills(tmp_path, straight, record_property, seed):
    died = torment(tmp_path, moments(8, random.Random(seed)))
    compare(tmp_path, straight)
    record_property("injected", len(died))
    record_property("phases", died)
