"""Every command that computes on a GPU goes through after a run on the pretended one."""

from __future__ import annotations

import json

import pytest

from tests.cli.words import smpo
from tools.pretended_gpu.matrix import SPEC

pytestmark = [pytest.mark.pretended, pytest.mark.usefixtures("device")]
HERE = ("--set=runtime.runs=runs", "--set=runtime.cache=runs/cache")


@pytest.fixture(scope="module")
def folder(device, tmp_path_factory):
    """Holds a finished run of the small spec."""
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        from tools.pretended_gpu.matrix import Matrix

        found = Matrix(folder).run("runtime.checkpoint_every=1")
        assert found.passed, found.error
    return folder


@pytest.fixture
def run(folder, monkeypatch, capfd):
    """Runs a command there; returns its standard output."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> str:
        done = smpo(capfd, *words)
        assert done.code == 0, f"smpo {' '.join(words)}\n{done.out}{done.err}"
        return done.out

    return run


def test_doctor_names_the_card(run):
    assert "Pretended GPU" in run("doctor")


def test_doctor_looks_at_a_run(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    assert smpo(capfd, "doctor", "small").code in (0, 1), "numbers of the pretended GPU may look ill"


def test_verify_draws_again(run):
    assert json.loads(run("verify", "small", "--json"))["judges"]


def test_rerun_trains_again(run):
    assert "small" in run("rerun", "small", "--quiet")


def test_eval_compares_models(run):
    assert run("eval", "small", "--quiet")


def test_compare_writes_a_page(run, folder):
    run("compare", "small", "--prompts", "2", "--quiet")
    assert (folder / "compare.html").stat().st_size > 1000


def test_score_fills_the_cache(run):
    assert run("score", str(SPEC), "--reward", "shapes-judge", *HERE)


def test_the_lock_names_the_card(folder):
    (lock,) = {file.read_text() for file in folder.glob("runs/small/*-1/lock.*")} or {""}
    assert "Pretended GPU" in lock


def test_the_plane_runs_too(run):
    words = ("train.steps=2", "train.warmup=0", "train.batch=8", "evaluate.limit=4", "runtime.device=cuda")
    run("run", "plane_smpo", "--quiet", *(f"--set={one}" for one in (*words, "runtime.tracking=none")), *HERE)
