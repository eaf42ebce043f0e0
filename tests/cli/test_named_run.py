"""`smpo run RUN --resume`: a run goes on in its own folder, from wherever it is named and wherever it was moved."""

import shlex
import shutil
from pathlib import Path

import pytest

from smpo.engine import loop
from smpo.runs.store import find_runs
from tests.cli.words import SMALL_PLANE, smpo
from tests.devices.launching import weights

SPEC = SMALL_PLANE.replace("threads: 1", "threads: 1, checkpoint_every: 2")


@pytest.fixture
def stopped(tmp_path, monkeypatch, capfd) -> Path:
    """A run that broke in its last update, moved into a folder whose name has to be quoted. We are elsewhere."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("typed.yaml").write_text(SPEC)
    judge, calls = loop.compute_loss, []

    def breaks(*words, **named):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(5, "Input/output error")
        return judge(*words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compute_loss", breaks)
        assert smpo(capfd, "run", "typed.yaml", "-q").code == 1
    moved = tmp_path / "moved to é"
    shutil.move(tmp_path / "here", moved)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return moved


def test_what_doctor_advises_goes_on_with_that_very_run(stopped, capfd):
    (run,) = find_runs(stopped / "runs")
    said = smpo(capfd, "doctor", run.path)
    words = shlex.split(said.out.split("→ `smpo ")[1].split("`")[0])
    assert words == ["run", str(run.path), "--resume"]
    said = smpo(capfd, *words)
    assert said.code == 0, said.err
    assert "going on after update 3 of 4" in said.err
    assert " 0 of at most" not in said.out, "its cache is known"
    assert run.summary() == "done" and not list(Path().iterdir()), "nothing was begun here"
    assert run.spec.read_text().startswith("# typed.yaml\n"), "what was typed stays"
    assert smpo(capfd, "run", run.path).err.startswith("error: this experiment was run before")


def test_its_resolved_spec_means_the_same_with_resume(stopped, capfd):
    (run,) = find_runs(stopped / "runs")
    assert smpo(capfd, "run", run.resolved, "-q").code == 0, "without it, it is a spec like any other"
    (other,) = find_runs(Path("runs"))
    assert run.summary() == "failed"
    assert smpo(capfd, "run", run.resolved, "--resume", "-q").code == 0
    assert run.summary() == "done"
    theirs, ours = weights(other.path), weights(run.path)
    assert all((theirs[name] == ours[name]).all() for name in ours)


def test_a_run_that_stopped_before_it_began_says_so(stopped, capfd):
    (run,) = find_runs(stopped / "runs")
    run.resolved.unlink()
    said = smpo(capfd, "run", run.path, "--resume")
    assert said.code == 1 and "holds no resolved.yaml" in said.err and "run its spec again" in said.err
