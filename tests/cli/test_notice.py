"""SIGTERM: a machine that is taken back, with half a minute's notice."""

import json
import signal
import time

import pytest

import smpo.app.run.signals as interrupt
from smpo.components.objectives import SmPO
from tests.cli.words import SMALL_PLANE, smpo

FEW = ("--set", "evaluate=null")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def end_of(folder, name):
    (run,) = folder.glob(f"runs/{name}/*-1")
    return run, (run / "model/model.safetensors").read_bytes()


@pytest.mark.fault(
    "faults", "SIGTERM while an update takes longer than the notice",
    "the update is broken off, the one before is kept, exit code 143; `--resume` goes on to the same end",
)  # fmt: skip
def test_an_update_that_outlasts_the_notice_is_broken_off(spec, capfd, monkeypatch):
    assert smpo(capfd, "run", spec, *FEW, "-q", "--set", "name=straight").code == 0
    plain, calls, before = SmPO.__call__, [], signal.getsignal(signal.SIGALRM)

    def slow(self, predicted, p):
        calls.append(len(p))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                time.sleep(0.01)
        return plain(self, predicted, p)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "PATIENCE", 0.3)
        patch.setattr(SmPO, "__call__", slow)
        began = time.monotonic()
        said = smpo(capfd, "run", spec, *FEW)
        assert time.monotonic() - began < 15
    assert said.code == 143 and "Traceback" not in said.err, said.err
    assert "SIGTERM: stopping after this update" in said.err and "checkpoint of update 2" in said.err
    (run,) = spec.parent.glob("runs/small/*-1")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert signal.getsignal(signal.SIGALRM) == before, "as it was before"
    assert smpo(capfd, "run", spec, *FEW, "-q", "--resume").code == 0
    assert end_of(spec.parent, "small")[1] == end_of(spec.parent, "straight")[1]


@pytest.mark.fault("faults", "SIGTERM while loading or evaluating", "it ends at once, in order; `--resume` goes on")
@pytest.mark.parametrize("phase", ["loading", "evaluating"])
def test_outside_of_training_it_ends_at_once(spec, capfd, monkeypatch, phase):
    from smpo.tracking.console import Console

    def told(self, title):
        if title == phase:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Console, "phase", told)
        said = smpo(capfd, "run", spec)
    assert said.code == 143 and "terminated" in said.err and "Traceback" not in said.err
    (run,) = spec.parent.glob("runs/small/*-1")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert json.loads((run / "events.jsonl").read_text().splitlines()[-1])["status"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0
