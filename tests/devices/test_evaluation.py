"""Processes draw and score a run's evaluation together, and find what one of them finds alone, to the last bit."""

import json
import shutil
import time

import pytest

from tests.cli.words import smpo
from tests.devices.launching import SHAPES, SMPO, kill, only_run, ran, start

SPEC = (
    SHAPES + "evaluate: {prompts: {use: shapes-prompts}, rewards: [shapes-reward], steps: 3, guidance: 3, limit: 18}\n"
)
BATCH = 4


@pytest.mark.parametrize("sharding", [pytest.param("none", marks=pytest.mark.slow), "fsdp"])
def test_two_processes_evaluate_as_one_does(tmp_path, capfd, monkeypatch, sharding):
    """The same weights, first by two processes, then by one that goes on from their last checkpoint."""
    (tmp_path / "small.yaml").write_text(SPEC)
    words = ["small.yaml", "-q", f"--set=runtime.encode_batch={BATCH}"]
    said = ran(*SMPO, "run", *words, "--devices=2", f"--set=runtime.sharding={sharding}", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    both = only_run(tmp_path)
    together = json.loads((both / "evaluation.json").read_text())
    cost = json.loads((both / "cost.json").read_text())

    # As if it had been killed when it was trained, on a machine whose caches are empty.
    shutil.copytree(tmp_path / "runs", tmp_path / "again", ignore=shutil.ignore_patterns("cache"))
    run = next(tmp_path.glob("again/small/*-1"))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    (run / "evaluation.json").unlink()
    monkeypatch.chdir(tmp_path)
    alone = smpo(capfd, "run", *words, "--resume", "--set=runtime.runs=again", "--set=runtime.cache=other")
    assert alone.code == 0, alone.err
    found = json.loads((run / "evaluation.json").read_text())

    assert found["judgements"] == together["judgements"]
    assert found["drift"] == together["drift"]
    pictures = len(found["prompts"])
    assert pictures > 2 * BATCH, "else one of the processes has nothing to do"
    assert cost["pictures"] == 2 * pictures, "those of the other process are counted, too"
    assert not (both / "drawn").exists()
    picture = "samples/before_after.png"
    assert (run / picture).read_bytes() == (both / picture).read_bytes()


@pytest.mark.slow
@pytest.mark.fault(
    "devices", "SIGKILL of one of two processes while evaluating",
    "the other names it and ends; `--resume` gets to the numbers of an undisturbed run",
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_them_dies(tmp_path, rank):
    (tmp_path / "small.yaml").write_text(SPEC.replace("steps: 3, guidance", "steps: 25, guidance"))
    words = ("run", "small.yaml", "-q", f"--set=runtime.encode_batch={BATCH}", "--devices=2")
    said = ran(*SMPO, *words, "--set=runtime.runs=straight", folder=tmp_path)
    assert said.returncode == 0, said.stderr

    process = start((*SMPO, *words), tmp_path)
    kill(process, rank, once=lambda: any(tmp_path.glob("runs/small/*-1/drawn/*/*.json")))
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - began < 60 and process.returncode == 1
    assert f"error: process {rank} of 2" in said and "Traceback" not in said
    run = only_run(tmp_path)
    assert (run / "checkpoints/step-00000003/manifest.json").exists() and not (run / "evaluation.json").exists()

    said = ran(*SMPO, *words, "--resume", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    (straight,) = tmp_path.glob("straight/small/*-1")
    one, two = (json.loads((folder / "evaluation.json").read_text()) for folder in (run, straight))
    assert one["judgements"] == two["judgements"]
    assert not (run / "drawn").exists()
