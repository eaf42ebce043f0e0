"""What goes wrong around a sweep: a storage that goes away, a torn journal, a trial that hangs, an edited spec."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from smpo.app.sweep import scheduler as module
from smpo.app.sweep.study import find_study, open_prepared
from smpo.app.sweep.worker import sweep
from smpo.errors import RunError
from smpo.sweep.corners import corners
from smpo.sweep.identity import study_id
from smpo.sweep.journal import Journal
from smpo.sweep.storage import open_storage
from tests.sweep.words import SWEEP, Quiet, small, start_fake


def test_half_a_line_at_the_end_of_a_journal_is_passed_over_and_then_removed(tmp_path):
    journal, file = Journal(tmp_path / "log"), tmp_path / "log"
    journal.append_logs([{"a": 1}, {"b": 2}])
    with file.open("ab") as out:
        out.write(b'{"torn": "by a full di')
    assert list(Journal(file).read_logs(0)) == [{"a": 1}, {"b": 2}]
    Journal(file).append_logs([{"c": 3}])
    assert list(Journal(file).read_logs(0)) == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert file.read_bytes().endswith(b'{"b":2}\n{"c":3}\n')


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_a_disk_that_is_full_leaves_no_half_line(tmp_path):
    """A limit on the size of files stands in for the disk; in another process, since limits can't be raised again."""
    script = f"""
import resource, signal
from pathlib import Path
from smpo.sweep.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path / "log")!r}))
journal.append_logs([{{"a": 1}}])
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
try:
    journal.append_logs([{{"much": "x" * 200}}])
except OSError as error:
    print("refused:", error.strerror)
print(list(journal.read_logs(0)), Path({str(tmp_path / "log")!r}).read_bytes()[-1:] == b"\\n")
"""
    import subprocess

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["refused: File too large", "[{'a': 1}] True"]


@pytest.mark.parametrize(
    ("what", "said"), [("a folder", "can't be opened"), ("another file", "is no journal of studies")]
)
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path, what, said):
    place = tmp_path / "study"
    if what == "a folder":
        place.mkdir()
    else:
        place.write_bytes(b"SQLite format 3\0\xff\xfe" + b"\n" * 3)
        before = place.read_bytes()
    with pytest.raises(RunError, match=said):
        open_storage(str(place))
    assert what == "a folder" or place.read_bytes() == before


def test_a_storage_that_goes_away_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "1")
    monkeypatch.setattr("smpo.app.sweep.retry._PAUSE", 0.2)
    prepared, screen = small(tmp_path, trials=4), Quiet()
    real, away = Journal.append_logs, threading.Event()

    def append(self, logs):
        if away.is_set():
            raise OSError(28, "No space left on device")
        return real(self, logs)

    monkeypatch.setattr(Journal, "append_logs", append)
    leave, back = threading.Timer(0.8, away.set), threading.Timer(2.5, away.clear)
    leave.start(), back.start()
    ending = sweep(prepared, screen, starter=start_fake)
    assert ending.why == "finished" and ending.counts.finished == 4 and ending.counts.running == 0
    assert any("No space left" in line for line in screen.said), screen.said
    assert any("it goes on again" in line for line in screen.said)
    runs = [one.attributes["run"] for one in ending.trials if one.finished]
    assert len(set(runs)) == len(runs) == 4


def test_a_storage_that_stays_away_ends_the_sweep_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr("smpo.app.sweep.retry._PAUSE", 0.1)
    monkeypatch.setattr("smpo.app.sweep.retry._OUTAGE", 0.3)
    monkeypatch.setattr(module, "_GRACE", 0.5)
    prepared, screen = small(tmp_path, trials=4), Quiet()
    open_prepared(prepared)

    def append(self, logs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append_logs", append)
    with pytest.raises(OSError, match="No space left"):
        sweep(prepared, screen, starter=start_fake)


def test_a_trial_that_hangs_is_ended_and_the_sweep_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GRACE", 0.5)
    monkeypatch.setenv("FAKE_TENTHS", "0")

    def start(order, log, environment):
        hangs = json.loads(Path(order).read_text())["answer"].endswith("trial-1.json")
        os.environ["FAKE_TENTHS"] = "600" if hangs else "0"
        return start_fake(order, log, environment)

    began = time.monotonic()
    ending = sweep(small(tmp_path, trials=3, trial_timeout=2.0), Quiet(), starter=start)
    assert ending.why == "finished" and ending.counts.finished == 3
    (late,) = [one for one in ending.trials if one.state == "failed"]
    assert late.number == 1 and late.outcome == "timed out" and "took longer than 2 s" in late.reason
    assert time.monotonic() - began < 60


def test_a_spec_that_is_edited_under_a_sweep_stops_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "1")
    prepared = small(tmp_path, trials=6)

    def start(order, log, environment):
        file = tmp_path / "small.yaml"
        file.write_text(file.read_text().replace("batch: 16", "batch: 8"))
        return start_fake(order, log, environment)

    with pytest.raises(RunError, match="was edited while the sweep ran"):
        sweep(prepared, Quiet(), starter=start)
    file = tmp_path / "small.yaml"
    file.write_text(file.read_text().replace("batch: 8", "batch: 16"))
    counts = find_study(prepared).counts()
    assert counts.running == 0 and counts.finished <= 1 and counts.failed == 0


def test_every_corner_belongs_to_the_same_study(tmp_path):
    block = SWEEP.replace("objective.beta: {log: [100, 5000]}", "objective: {choice: [dpo, smpo, ipo]}")
    for one in (small(tmp_path, SWEEP), small(tmp_path, block)):
        ids = {study_id(one.at(one.sweep.space.settings(at)), one.sweep) for at in corners(one.sweep.space)}
        assert ids == {one.id}
