"""`smpo sweep` and `smpo run ABLATION`, whose coordinators and children are killed: what is finished stays, and the
table is that of an undisturbed one."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kill.record import CLOCKS
from tests.paths import python_path

PLANE = """\
name: tiny
model: plane
data: {use: plane-pairs, limit: 200}
reward: plane-radius
objective: {use: dpo, beta: 500}
smoothing: hard
inversion: {use: renoise, steps: 4, by: reference}
train: {steps: 6, batch: 16, lr: 1e-4, holdout: 20}
evaluate:
  prompts: {use: plane-prompts, repeats: 3}
  rewards: [plane-radius, plane-on-axis]
  guidance: 3
  steps: 6
runtime: {threads: 1, checkpoint_every: 2, diagnose_every: 2}
"""
SWEEP = (
    PLANE
    + """\
sweep:
  maximise: eval/plane-radius/gain
  trials: 8
  search:
    objective.beta: {log: [100, 5000]}
    train.lr: {log: [1e-6, 1e-3]}
  rungs: {at: [2, 4], prompts: 8, steps: 4}
  prune: {use: median, startup: 2}
  confirm: {seeds: 2}
"""
)
ABLATION = (
    PLANE
    + """\
ablation:
  seeds: 2
  variants:
    - name: DPO
    - name: smoothed
      set: {smoothing: likelihood}
    - name: slow
      set: {train.lr: 1e-6}
"""
)
pytestmark = pytest.mark.slow
Table = Callable[[Path], Any]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "smpo.cli.main", *words],
        cwd=folder, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Run folders and what they say of themselves."""
    found = []
    for path in folder.glob("runs/tiny/*-[0-9]*"):
        try:
            found.append((path, json.loads((path / "status.json").read_text())))
        except (OSError, ValueError):  # being made
            continue
    return [one for one in found if "-" in one[0].name and (one[0] / "spec.yaml").exists()]


def finished(folder: Path) -> dict[str, int]:
    """Runs that are over, and when a file was written that would be written again if they were run again."""
    over = [path for path, said in runs(folder) if said["state"] in ("done", "pruned")]
    return {path.name: (path / "metrics.jsonl").stat().st_mtime_ns for path in over}


def torment(folder: Path, spec: str, words: list[str], who: list[list[str]], lot: random.Random) -> int:
    """Start, kill these one after the other, the next lot at the next start; then let it finish. Returns the kills.

    Where a process came to its end before all of its lot were killed, all begins anew, and they are killed sooner.
    """
    for patience in (3.0, 0.5, 0.0):
        folder.mkdir()
        (folder / "tiny.yaml").write_text(spec)
        if _all_were_killed(folder, words, who, lot, patience):
            return sum(map(len, who))
        _wait_for_orphans(folder)
        shutil.rmtree(folder)
    pytest.fail("it is over before all of them can be killed")


def _all_were_killed(folder: Path, words: list[str], who: list[list[str]], lot: random.Random, patience: float) -> bool:
    kept = dict[str, int]()
    for victims in [*who, []]:
        if not _attack(folder, words, victims, lot, patience):
            return False
        now = finished(folder)
        assert kept.items() <= now.items(), "a finished run was run again"
        kept = now
    return True


def _wait_for_orphans(folder: Path) -> None:
    """Trials whose coordinator was killed come to their end by themselves."""
    orphans = [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(folder)]
    assert not psutil.wait_procs(orphans, timeout=120)[1]


def _attack(folder: Path, words: list[str], victims: list[str], lot: random.Random, patience: float) -> bool:
    """Start, and kill each of these some time after one more run has begun: a trial that is killed three times would be
    given up. Returns whether all were there to be killed."""
    begun, killed = names(folder), 0
    process = start(folder, *words)
    for victim in victims:
        until = time.monotonic() + 120
        while process.poll() is None and names(folder) <= begun and time.monotonic() < until:
            time.sleep(0.02)
        begun = names(folder)
        time.sleep(lot.uniform(0, patience))
        killed += _kill(victim, process, folder)
    said = process.communicate(timeout=500)
    if "coordinator" not in victims:
        assert process.returncode in (0, -signal.SIGKILL), said[1]
    assert "Traceback" not in said[1], said[1]
    return killed == len(victims)


def names(folder: Path) -> set[str]:
    """Runs that have begun."""
    return {path.name for path, _ in runs(folder)}


def _kill(victim: str, process: subprocess.Popen[str], folder: Path) -> bool:
    if victim == "coordinator" and process.poll() is None:
        process.kill()
        return True
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        for _, said in runs(folder):
            if said["state"] == "running" and said["pid"] != process.pid and Path(f"/proc/{said['pid']}").exists():
                os.kill(said["pid"], signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def trials(folder: Path) -> Any:
    """Settings, outcome, value and reason of every trial that came to an end, and what the best is worth on new seeds.

    A trial whose process was killed is in the table too, as lost; its settings were tried again under another number.
    Where its run was over before anybody had noted so, the second finds it: reused is as good as done.
    """
    (study,) = folder.glob("runs/tiny/study-*")
    with (study / "trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["state"] in ("done", "pruned")]
    for row in rows:
        del row["seconds"], row["trial"]
        row["outcome"] = "done" if row["outcome"] == "reused" else row["outcome"]
    confirmed = json.loads((study / "confirmed.json").read_text())
    for point in confirmed["points"]:
        del point["trial"]
    return sorted(rows, key=lambda row: str(row["run"])), confirmed


def rungs(folder: Path) -> Any:
    (ablation,) = folder.glob("runs/tiny/ablation-*")
    found = json.loads((ablation / "ablation.json").read_text())
    return _without_clocks(found), (ablation / "ablation.csv").read_text().count("\n")


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_clocks(v) for k, v in value.items() if "seconds" not in k and k not in ("cost", "costs")}
    return [_without_clocks(one) for one in value] if isinstance(value, list) else value


def check_store(folder: Path) -> None:
    """Each run once in MLflow, and each of its points once, in the order of the updates."""
    with sqlite3.connect(folder / "runs/mlflow.db") as store:
        logs = store.execute("SELECT value, COUNT(*) FROM tags WHERE key = 'smpo.log' GROUP BY value").fetchall()
        assert all(count == 1 for _, count in logs), "a run is shown twice"
        for (uid,) in store.execute("SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId'").fetchall():
            assert store.execute("SELECT status FROM runs WHERE run_uuid = ?", (uid,)).fetchone()[0] != "RUNNING"
            points: dict[str, list[int]] = {}
            for key, step in store.execute(
                "SELECT key, step FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step", (uid,)
            ):
                points.setdefault(key, []).append(step)
            for key, steps in points.items():
                assert key.startswith(CLOCKS) or steps == sorted(set(steps)), f"{key} of {uid}: {steps}"


@pytest.mark.parametrize(
    ("spec", "words", "who", "table"),
    [
        pytest.param(
            SWEEP, ["sweep", "tiny.yaml", "-q"], [["child", "coordinator"]] * 3, trials, id="sweep",
            marks=pytest.mark.fault("kill", "SIGKILL of `smpo sweep`, and of its trials",
                                    "finished trials aren't run again; the same trials, values and winner"),
        ),
        pytest.param(
            ABLATION, ["run", "tiny.yaml", "-q"], [["coordinator"]] * 4, rungs, id="ablation",
            marks=pytest.mark.fault("kill", "SIGKILL of an ablation",
                                    "finished rungs aren't run again; the same table"),
        ),
        # Whoever is left of two processes does the rest, so there is one kill in each of these.
        *(
            pytest.param(
                ABLATION, ["run", "tiny.yaml", "-q", "--jobs", "2"], [[victim]], rungs, id=f"ablation of two, {victim}",
                marks=pytest.mark.fault("kill", "SIGKILL of one of an ablation's processes",
                                        "what the killed one held is taken over; the same table"),
            )
            for victim in ("coordinator", "child")
        ),
    ],
)  # fmt: skip
def test_what_is_finished_stays(tmp_path, record_property, spec, words, who, table: Table):
    straight, folder = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    (straight / "tiny.yaml").write_text(spec)
    process = start(straight, *words)
    said = process.communicate(timeout=500)
    assert process.returncode == 0, said[1]
    kills = torment(folder, spec, words, who, random.Random(1))
    record_property("injected", kills)
    assert table(folder) == table(straight)
    check_store(folder)
