"""`smpo run`, killed again and again: resumed by the same command, it ends bitwise where an uninterrupted run does."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kill.driver import PHASES, find
from tests.kill.record import left_by, mirrored
from tests.paths import python_path

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

HANDS = {1: 4, 2: 8, 3: 8, 4: 8, 5: 8}
"""Seeds, and how often the run of each is killed; the first is in every test run, the others are slow."""

FAULT = pytest.mark.fault(
    "kill",
    "SIGKILL of `smpo run`",
    f"killed while {', '.join(ORDER)}: resumed, it ends bit for bit where an uninterrupted one does; one MLflow run, "
    "each point once",
)


def hand(seed: int) -> list[str]:
    """The phases in which the run of this seed dies, each once: a shuffled deck of all, dealt round and round."""
    deck = random.Random(0).sample(ORDER, k=len(ORDER))
    first = sum(kills for other, kills in HANDS.items() if other < seed)
    return [deck[(first + place) % len(deck)] for place in range(HANDS[seed])]


def moments(phases: list[str], lot: random.Random) -> list[dict[str, Any]]:
    """When to kill in each: at its beginning, in it or at its end; in a likely order."""
    plans = []
    for phase in phases:
        after = lot.choice([0.0, -1.0, lot.uniform(0, 0.01), lot.uniform(0, 0.05)])
        plans.append({"phase": phase, "nth": lot.randint(1, NTH.get(phase, 1)), "after": after})
    return sorted(plans, key=lambda plan: (ORDER.index(plan["phase"]), plan["nth"]))


def earlier(plan: dict[str, Any], lot: random.Random) -> dict[str, Any]:
    """The same phase, sooner: for a plan that the process outran, since what it left holds fewer of them."""
    return {**plan, "nth": lot.randint(1, max(1, plan["nth"] // 2)), "after": 0.0}


def smpo(folder: Path, plan: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.kill.driver", json.dumps({"slow": True, **plan}), *words],
        cwd=folder, capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run leaves when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "tiny.yaml").write_text(SPEC)
    said = resume(folder, {})
    assert said.returncode == 0, said.stderr
    (run,) = folder.glob("runs/tiny/*-1")
    return left_by(run), mirrored(folder / "runs/mlflow.db")


def torment(folder: Path, seed: int) -> list[str]:
    """Kill as planned and go on, then let it finish; returns the phases in which it died.

    A process that came to the end of the run before its moment is taken back, and killed sooner: only what leaves a
    run undone counts.
    """
    lot = random.Random(seed)
    work, before = folder / "work", folder / "before"
    work.mkdir()
    (work / "tiny.yaml").write_text(SPEC)
    died = []
    for plan in moments(hand(seed), lot):
        shutil.copytree(work, before)
        while (said := resume(work, plan)).returncode != -signal.SIGKILL or is_done(work):
            assert said.returncode in (0, -signal.SIGKILL), said.stderr
            assert (plan["nth"], plan["after"]) != (1, 0.0), f"{plan['phase']} is over, or never begins"
            shutil.rmtree(work)
            shutil.copytree(before, work)
            plan = earlier(plan, lot)
        assert "killed\n" in said.stderr and "Traceback" not in said.stderr
        died.append(plan["phase"])
        shutil.rmtree(before)
    said = resume(work, {})
    assert said.returncode == 0, said.stderr
    said = resume(work, {})
    assert said.returncode == 1 and "this experiment was run before" in said.stderr, said.stderr
    return died


def resume(folder: Path, plan: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return smpo(folder, plan, "run", "tiny.yaml", "-q", "--resume")


def is_done(folder: Path) -> bool:
    (status,) = folder.glob("runs/tiny/*-1/status.json")
    return json.loads(status.read_text())["state"] == "done"


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


def test_the_plan_is_whole():
    """At least 30 kills, and some in every phase; the tests below see that each of them happens."""
    dealt = [phase for seed in HANDS for phase in hand(seed)]
    assert len(dealt) >= 30
    assert set(dealt) == set(PHASES)
    assert all(callable(getattr(*find(place))) for place in PHASES.values()), "none was renamed"


@FAULT
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow if seed > 1 else ()) for seed in HANDS])
def test_kills(tmp_path, straight, record_property, seed):
    died = torment(tmp_path, seed)
    assert sorted(died) == sorted(hand(seed))
    compare(tmp_path / "work", straight)
    record_property("injected", len(died))
