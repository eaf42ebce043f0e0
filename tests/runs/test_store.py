"""Run folders: identity, state, and who may have one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smpo.errors import RunError
from smpo.runs.store import RunExists, RunFolder, RunInterrupted, RunLive, find_runs, open_run

HASH = "7c41e09b52ad"

HOLD = """
import sys, time
from pathlib import Path
from smpo.runs.store import open_run
run = open_run(Path(sys.argv[1]), "toy", sys.argv[2])
run.update(7, now=True)
print(run.id, flush=True)
time.sleep(float(sys.argv[3]))
"""


def _holder(root: Path, seconds: float = 60) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(root), HASH, str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_first_run_gets_attempt_one_and_its_folders(tmp_path: Path) -> None:
    with open_run(tmp_path, "toy", HASH) as run:
        assert run.path == tmp_path / "toy" / f"{HASH}-1"
        assert (run.name, run.spec_hash, run.attempt, run.resumed) == ("toy", HASH, 1, False)
        assert run.checkpoints.is_dir() and run.samples.is_dir()
        assert run.status().state == "running" and run.status().pid == os.getpid()
        assert run.write_text("spec.yaml", "name: toy\n").read_text() == "name: toy\n"
    assert run.status().state == "done"
    assert not run.is_live()


def test_only_the_process_that_holds_a_run_writes_into_it(tmp_path: Path) -> None:
    run = open_run(tmp_path, "toy", HASH)
    with pytest.raises(AssertionError, match=r"lock\.json .* the process that holds the run"):
        RunFolder(run.path).write_text("lock.json", "{}")
    assert not run.lock_file.exists()
    run.close("done")


def test_finished_identity_says_so_and_again_makes_another_attempt(tmp_path: Path) -> None:
    open_run(tmp_path, "toy", HASH).close("done")
    for resume in (False, True):
        with pytest.raises(RunExists) as caught:
            open_run(tmp_path, "toy", HASH, resume=resume)
        assert isinstance(caught.value, RunError)
        assert caught.value.folder == tmp_path / "toy" / f"{HASH}-1"
        assert "--again" in str(caught.value.help) and "smpo show" in str(caught.value.help)
    with open_run(tmp_path, "toy", HASH, again=True) as second:
        assert second.attempt == 2 and not second.resumed


@pytest.mark.parametrize("state", ["failed", "stopped", "pruned"])
def test_unfinished_identity_offers_resume(tmp_path: Path, state: str) -> None:
    run = open_run(tmp_path, "toy", HASH)
    run.update(12)
    run.close(state, "out of memory")  # type: ignore[arg-type]
    with pytest.raises(RunInterrupted, match=r"step 12 \(out of memory\)") as caught:
        open_run(tmp_path, "toy", HASH)
    assert "--resume" in str(caught.value.help) and "--again" in str(caught.value.help)
    assert not isinstance(caught.value, RunExists)
    with open_run(tmp_path, "toy", HASH, resume=True) as again:
        assert again.path == run.path and again.resumed
        assert again.status().state == "running" and again.status().step == 12


def test_resume_with_nothing_to_resume_begins(tmp_path: Path) -> None:
    with open_run(tmp_path, "toy", HASH, resume=True) as run:
        assert run.attempt == 1 and not run.resumed


def test_latest_attempt_decides(tmp_path: Path) -> None:
    open_run(tmp_path, "toy", HASH).close("done")
    open_run(tmp_path, "toy", HASH, again=True).close("failed")
    with open_run(tmp_path, "toy", HASH, resume=True) as run:
        assert run.attempt == 2
    with pytest.raises(RunExists):
        open_run(tmp_path, "toy", HASH)


@pytest.mark.fault(
    "faults", "a second run in a folder that is in use; a lock whose process was killed",
    "an error names the first run; the lock of a dead process is taken over",
)  # fmt: skip
def test_a_live_run_refuses_and_a_killed_one_is_interrupted(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    try:
        assert holder.stdout is not None and holder.stdout.readline().strip() == f"{HASH}-1"
        (run,) = find_runs(tmp_path)
        assert run.is_live() and run.summary() == "running"
        for resume in (False, True):
            with pytest.raises(RunLive, match=f"process {holder.pid} .*step 7"):
                open_run(tmp_path, "toy", HASH, resume=resume)
        with open_run(tmp_path, "toy", HASH, again=True) as other:
            assert other.attempt == 2
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert run.status().state == "running", "nobody could correct it"
    assert not run.is_live() and run.summary() == "interrupted"


@pytest.mark.fault(
    "faults",
    "two runs that are started in one folder at the same moment",
    "one starts, the other ends with an error",
)
def test_two_processes_at_once_get_one_run(tmp_path: Path) -> None:
    both = [_holder(tmp_path, seconds=2.0) for _ in range(2)]
    said = [process.communicate(timeout=30) for process in both]
    assert sorted(out.strip() for out, _ in said) == ["", f"{HASH}-1"]
    assert any("RunLive" in error for _, error in said)


def test_leaving_the_context_tells_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(ValueError), open_run(tmp_path, "toy", HASH) as failed:
        raise ValueError("bad latents")
    assert (failed.status().state, failed.status().message) == ("failed", "ValueError: bad latents")
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, "toy", HASH, resume=True) as stopped:
        raise KeyboardInterrupt
    assert stopped.status().state == "stopped"
    with open_run(tmp_path, "toy", HASH, resume=True) as run:
        run.close("pruned", "no hope")
    assert run.status().state == "pruned", "the first ending stays"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running"}', '{"step": "many"}', '"x"'])
def test_damaged_status_is_unknown_not_an_error(tmp_path: Path, content: str) -> None:
    run = open_run(tmp_path, "toy", HASH)
    run.close("done")
    (run.path / "status.json").write_text(content)
    assert run.status().state == "unknown"
    assert find_runs(tmp_path)[0].summary() == "interrupted"
    with pytest.raises(RunInterrupted):
        open_run(tmp_path, "toy", HASH)


def test_updates_are_rare_on_disk_and_complete_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = RunFolder.write_text
    monkeypatch.setattr(RunFolder, "write_text", lambda self, *a: (writes.append(a[0]), write(self, *a))[1])
    with open_run(tmp_path, "toy", HASH) as run:
        for step in range(1, 1001):
            run.update(step)
    assert len(writes) < 10
    assert json.loads((run.path / "status.json").read_text())["step"] == 1000
    assert [path.name for path in run.path.iterdir() if path.suffix == ".tmp"] == []


def test_finding_runs(tmp_path: Path) -> None:
    other = "0a" * 6
    for name, spec in (("toy", HASH), ("toy", other), ("sdxl", HASH)):
        open_run(tmp_path, name, spec).close("done")
        time.sleep(0.01)
    open_run(tmp_path, "toy", HASH, again=True).close("failed")
    (tmp_path / "cache" / "not-a-run").mkdir(parents=True)
    (tmp_path / "toy" / "notes-1").mkdir()
    assert [f"{run.name}/{run.id}" for run in find_runs(tmp_path)] == [
        f"toy/{HASH}-1", f"toy/{other}-1", f"sdxl/{HASH}-1", f"toy/{HASH}-2",
    ]  # fmt: skip
    assert [run.id for run in find_runs(tmp_path, "toy", HASH[:4])] == [f"{HASH}-1", f"{HASH}-2"]
    assert [run.name for run in find_runs(tmp_path, spec_hash=f"{HASH}-2")] == ["toy"]
    assert find_runs(tmp_path / "nowhere") == [] and find_runs(tmp_path, "nothing") == []
