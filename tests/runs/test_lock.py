"""What is written down so that a run can be repeated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import smpo
from smpo.runs import lock
from smpo.runs.lock import RunFacts, changes, git_facts, lock_facts, processor


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "spec.yaml").write_text("steps: 10\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_facts_are_complete_and_json(project: Path) -> None:
    facts = lock_facts(
        RunFacts(
            spec="7c41e09b52ad", group="1d90f2c7a310", seeds={"train": 0}, data={"digest": "88c1"},
            weights={"policy": "4621"},
        ),
        devices=["NVIDIA H100"], project=project,
    )  # fmt: skip
    assert json.loads(json.dumps(facts)) == facts
    assert facts["smpo"]["version"] == smpo.__version__
    assert facts["processor"] == processor(), "bits hold on one type of processor"
    assert facts["packages"]["torch"] and facts["packages"]["numpy"]
    assert facts["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert facts["project"]["git"]["branch"] == "main" and facts["project"]["git"]["dirty"] is False
    assert (facts["data"], facts["weights"]) == ({"digest": "88c1"}, {"policy": "4621"})


def test_nothing_heavy_is_imported() -> None:
    modules = [
        "runs.lock",
        "runs.store",
        "engine.monitoring.tracker",
        "tracking.mlflow",
        "tracking.console",
        "tracking.ui",
    ]
    words = f"import sys, {', '.join(f'smpo.{module}' for module in modules)};"
    call = "from smpo.runs.lock import *; lock_facts(RunFacts(spec='a'));"
    code = f"{words} {call} sys.exit(bool({{'torch','mlflow','numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_changed_and_untracked_sources_change_the_hash(project: Path) -> None:
    clean = git_facts(project)
    assert clean is not None and clean["changes"] is None
    (project / "results.bin").write_bytes(b"1")
    assert git_facts(project) == clean, "results aren't code"
    (project / "spec.yaml").write_text("steps: 20\n")
    edited = git_facts(project)
    assert edited is not None and edited["dirty"] and edited["commit"] == clean["commit"]
    (project / "mine.py").write_text("x = 1\n")
    one = git_facts(project)
    (project / "mine.py").write_text("x = 2\n")
    two = git_facts(project)
    assert one is not None and two is not None
    assert len({edited["changes"], one["changes"], two["changes"]}) == 3


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_facts(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_facts(tmp_path) is None
    assert lock_facts(RunFacts(spec="a"))["smpo"]["git"] is None


def test_a_folder_that_only_lies_in_a_repository_has_no_commit(project: Path) -> None:
    inside = project / ".venv" / "smpo"
    inside.mkdir(parents=True)
    (inside / "a.py").write_text("")
    assert git_facts(inside) is None


def test_secrets_stay_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + "Ab1" * 10
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:hunter2@hub.example")
    monkeypatch.setattr(sys, "argv", ["smpo", "--token", "hunter2", "--api-key=hunter2", secret, "-s", "beta=1"])
    _git(project, "remote", "add", "origin", "https://me:hunter2@git.example/x.git")
    text = json.dumps(lock_facts(RunFacts(spec="a"), project=project))
    assert "hunter2" not in text and secret not in text
    assert "beta=1" in text and "git.example/x.git" in text and "hub.example" in text


def test_changes_name_what_could_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "git_facts", lambda folder: None)  # the tree may be edited meanwhile
    before = lock_facts(RunFacts(spec="a"), devices=["A100"])
    version = lock._version
    monkeypatch.setattr(lock, "_version", lambda name: "9.9" if name == "torch" else version(name))
    monkeypatch.setattr(lock, "processor", lambda: "vendor_id GenuineIntel cpu family 6 model 207")
    after = lock_facts(RunFacts(spec="a"), devices=["H100"])
    assert changes(before, before) == []
    found = changes(before, after)
    assert "devices: ['A100'] → ['H100']" in found
    assert any(line.startswith("packages.torch: ") and line.endswith("→ 9.9") for line in found)
    assert any(line.startswith("processor: ") and line.endswith("6 model 207") for line in found)
    assert len(found) == 3
    del before["processor"]
    assert len(changes(before, after)) == 2, "an older lock has none"
