"""A wall clock that is set while a run goes on, or between its parts."""

import json
import time

import pytest

from smpo.runs.clock import Clock
from smpo.tracking.console import Console
from tests.cli.words import SMALL_PLANE, smpo

DAY = 86_400.0


def test_the_clock_counts_on_and_begins_after_what_was(monkeypatch):
    clock = Clock()
    began = clock.now()
    assert abs(began - time.time()) < 1
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock.now() - began < 1
    clock.not_before(began - 100)
    assert clock.now() - began < 1
    clock.not_before(began + 100)
    assert 100 <= clock.now() - began < 101


@pytest.mark.fault(
    "faults", "a clock that is set by a day, forwards or back, during a run and before it is resumed",
    "times in the record go on in order, durations stay those that passed",
)  # fmt: skip
@pytest.mark.parametrize("days", [-1, 1])
def test_times_stay_in_order(days, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SMALL_PLANE)
    wall, off = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + off[0])

    def step(self, report, total):
        if report.step == 2 and not off[0]:
            off[0] = days * DAY
            raise KeyboardInterrupt

    began = time.monotonic()
    monkeypatch.setattr(Console, "step", step)
    assert smpo(capfd, "run", "s.yaml", "--set", "runtime.checkpoint_every=1").code == 130
    assert smpo(capfd, "run", "s.yaml", "--resume").code == 0
    took = time.monotonic() - began
    (run,) = tmp_path.glob("runs/small/*-1")
    for name in ("metrics.jsonl", "events.jsonl"):
        times = [json.loads(line)["time"] for line in (run / name).read_text().splitlines()]
        assert times == sorted(times), name
    status = json.loads((run / "status.json").read_text())
    spent = status["updated"] - status["started"]
    assert 0 <= spent < took + 1 + max(0, days) * DAY
    costs = json.loads((run / "cost.json").read_text())
    assert all(0 <= v <= took for v in costs["seconds"].values()), costs
    doctor = smpo(capfd, "doctor", run)
    assert "Traceback" not in doctor.err and "-0." not in doctor.out
