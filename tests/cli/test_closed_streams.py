"""Runs whose output nobody reads go on to their end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smpo.cli.exit_codes import ignore_broken_pipe
from tests.cli.words import SMALL_PLANE, smpo
from tests.paths import python_path


def shell(words, cwd):
    command = f"'{sys.executable}' -m smpo.cli.main run s.yaml {words}"
    env = {**os.environ, "PYTHONPATH": python_path()}
    return subprocess.run(["/bin/sh", "-c", command], cwd=cwd, env=env, capture_output=True, timeout=120)


@pytest.mark.fault(
    "faults", "output to a closed pipe or a full disk",
    "the run finishes without a traceback; a full disk is reported where possible",
)  # fmt: skip
@pytest.mark.parametrize(
    "bent",
    ["| head -1", "2>&1 | head -1", "> /dev/full", "> /dev/full 2>&1"],
)  # fmt: skip
def test_a_run_goes_on(bent, tmp_path):
    (tmp_path / "s.yaml").write_text(SMALL_PLANE)
    done = shell(f"--set evaluate.steps=2 {bent}; true", tmp_path)
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
    (run,) = tmp_path.glob("runs/small/*-1")
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert (run / "model/model.safetensors").exists()
    if bent == "> /dev/full":
        assert b"standard output can't be written (No space left on device)" in done.stderr


def test_the_code_is_that_of_the_run(tmp_path):
    (tmp_path / "s.yaml").write_text(SMALL_PLANE)
    assert shell("--set evaluate=null > /dev/full", tmp_path).returncode == 0
    assert shell("--set train.steps=0 > /dev/full", tmp_path).returncode == 2


def test_streams_are_given_back_and_say_once(tmp_path):
    before = sys.stdout, sys.stderr
    with Path("/dev/full").open("w") as full, (tmp_path / "err").open("w") as err:
        sys.stdout, sys.stderr = full, err
        try:
            with ignore_broken_pipe():
                for _ in range(3):
                    print("x" * 10_000, flush=True)
                sys.stdout.writelines(["a\n", "b\n"])
                assert sys.stdout.fileno() == full.fileno()
            assert (sys.stdout, sys.stderr) == (full, err)
        finally:
            sys.stdout, sys.stderr = before
    assert (tmp_path / "err").read_text().count("warning") == 1


def test_a_terminal_that_is_gone_stops_a_run_with_a_checkpoint(tmp_path, capfd, monkeypatch):
    from smpo.tracking.console import Console

    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SMALL_PLANE)

    def step(self, report, total):
        if report.step == 2:
            signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(Console, "step", step)
    said = smpo(capfd, "run", "s.yaml", "--set", "evaluate=null")
    assert said.code == 143 and list(tmp_path.glob("runs/small/*/checkpoints/step-00000002"))
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert smpo(capfd, "run", "s.yaml", "--set", "evaluate=null", "--again").code == 0, "as under nohup"
    finally:
        signal.signal(signal.SIGHUP, earlier)
