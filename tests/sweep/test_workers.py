"""Several processes on one study, one of them killed in the middle: nothing lost, nothing twice, exactly as many."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from smpo.app.sweep.study import find_study
from smpo.app.sweep.worker import sweep
from tests.sweep.words import SWEEP, Quiet, small, start_fake

ROOT = Path(__file__).parents[2]


def worker(folder: Path, trials: int, jobs: int = 1, storage: str = "", tenths: int = 3) -> subprocess.Popen[str]:
    words = [
        str(folder / "small.yaml"),
        str(folder / "runs"),
        str(trials),
        str(jobs),
        *([storage] if storage else []),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.fake_worker", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_TENTHS": str(tenths)},
    )


def ledger(folder: Path) -> list[list[str]]:
    file = folder / "runs" / "ledger.txt"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(condition, seconds=240.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def four_workers_and_a_murder(folder: Path, trials: int, storage: str = ""):
    workers = [worker(folder, trials, storage=storage) for _ in range(4)]
    try:
        wait_for(lambda: len({line[2] for line in ledger(folder) if line[0] == "begin"}) >= 4)
        begun = {line[1] for line in ledger(folder) if line[0] == "begin"}
        workers[0].send_signal(signal.SIGKILL)
        assert begun
        said = [json.loads(one.communicate(timeout=150)[0].splitlines()[-1]) for one in workers[1:]]
    finally:
        for one in workers:
            one.kill()
    assert [one["why"] for one in said] == ["finished"] * 3
    study = find_study(small(folder, storage=storage or None))
    all_trials = study.trials()
    counts = study.counts(all_trials)
    assert counts.finished == trials, "exactly as many as were asked for"
    assert counts.running == counts.waiting == 0, "none lost"
    ended = Counter(line[1] for line in ledger(folder) if line[0] == "end")
    assert not [name for name, times in ended.items() if times > 1], "no trial was run twice"
    lost = [one for one in all_trials if one.outcome == "lost"]
    assert len(lost) <= 1
    for one in lost:
        again = [other for other in all_trials if other.attributes.get("again") == one.number]
        if not one.params:  # killed while it asked: there is nothing yet that could be tried again
            continue
        # Killed between two settings, it has fewer; the rest are chosen when it is tried again.
        assert len(again) == 1 and one.params.items() <= again[0].params.items() and again[0].finished
    assert len({tuple(sorted(one.params.items())) for one in all_trials if one.finished}) == trials, "no duplicates"
    return lost


def test_four_workers_one_killed(tmp_path):
    small(tmp_path)
    lost = four_workers_and_a_murder(tmp_path, 14)
    assert lost, "it was killed in the middle of a trial"


def test_a_killed_sweep_goes_on_to_exactly_as_many(tmp_path):
    small(tmp_path)
    first = worker(tmp_path, 6, jobs=2)
    wait_for(lambda: len([line for line in ledger(tmp_path) if line[0] == "end"]) >= 2)
    first.kill()
    first.wait()
    second = worker(tmp_path, 6, jobs=2)
    said = json.loads(second.communicate(timeout=120)[0].splitlines()[-1])
    assert said["finished"] == 6
    assert any("goes on with" in line for line in said["said"])
    third = worker(tmp_path, 6)
    assert json.loads(third.communicate(timeout=60)[0].splitlines()[-1])["finished"] == 6
    # Those that were done when their sweep was killed, and not yet told, at most one a job, may have been run again:
    # a real one is only read.
    assert 6 <= len([line for line in ledger(tmp_path) if line[0] == "end"]) <= 6 + 2
    finished = [one for one in find_study(small(tmp_path)).trials() if one.finished]
    assert len({one.attributes["run"] for one in finished}) == len(finished) == 6


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "terminated")],
)
def test_a_signal_gives_trials_back(tmp_path, number, why):
    small(tmp_path)
    first = worker(tmp_path, 4, jobs=2, tenths=100)
    wait_for(lambda: len(ledger(tmp_path)) >= 2)
    first.send_signal(number)
    said = json.loads(first.communicate(timeout=60)[0].splitlines()[-1])
    assert said["why"] == why
    study = find_study(small(tmp_path))
    counts = study.counts()
    assert (counts.finished, counts.running, counts.waiting) == (0, 0, 2)


def test_failures_are_recorded_with_their_reason_and_stop_a_hopeless_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "0")
    prepared = small(tmp_path, SWEEP + "  patience: 3\n", trials=10)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "crash").touch()
    ending = sweep(prepared, Quiet(), starter=start_fake)
    assert ending.why == "failures"
    assert [one.outcome for one in ending.trials] == ["crashed"] * 3
    assert all("on purpose" in one.reason for one in ending.trials)
    (tmp_path / "runs" / "crash").unlink()
    # The failures are past: three more finish, and the study remembers both.
    ending = sweep(small(tmp_path, SWEEP + "  patience: 4\n", trials=3), Quiet(), starter=start_fake)
    assert ending.counts.finished == 3 and ending.counts.failed == 3


def test_divergence_is_a_bad_result(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "0")
    sweep_block = SWEEP + "  first: [{train.lr: 9e-4}, {}]\n"
    ending = sweep(small(tmp_path, sweep_block, trials=2), Quiet(), starter=start_fake)
    assert [(one.state, one.outcome) for one in ending.trials[:2]] == [
        ("pruned", "diverged"),
        ("done", "done"),
    ]
    assert ending.why == "finished"


def test_a_budget_of_time_ends_it_and_more_goes_on(tmp_path, monkeypatch):
    ending = sweep(small(tmp_path, trials=50, timeout=0.5), Quiet(), starter=start_fake)
    assert ending.why == "timeout"
    assert 1 <= ending.counts.finished < 50 and ending.counts.running == 0
    ending = sweep(small(tmp_path, trials=50, gpu_hours=1e-9), Quiet(), starter=start_fake)
    assert ending.why == "gpu hours"
