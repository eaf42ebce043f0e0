"""`smpo data audit`, `smpo score` and `smpo cache` as a person types them."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.words import SMALL_PLANE, smpo
from tests.data.worlds import jpeg, vote, write
from tests.trust import trust

SLOW = """
import time
from typing import Literal
import numpy as np, torch
from smpo.kinds import Reward
from smpo.registry.component import register

class Red:
    key = "red"
    def __call__(self, pictures, prompts):
        with open("batches.txt", "a") as stream:
            stream.write(f"{len(pictures)}\\n")
        time.sleep(SECONDS)
        return torch.tensor([float(np.asarray(p)[..., 0].mean()) for p in pictures])

@register
class RedReward(Reward):
    \"\"\"How red a picture is.\"\"\"
    use: Literal["red"] = "red"
    def load(self, runtime):
        return Red()
"""

SPEC = """\
name: pictures
uses: [./red.py]
model: shapes
data: {use: pickapic, path: pairs.parquet}
reward: red
objective: smpo
smoothing: likelihood
inversion: none
train: {steps: 2, batch: 4, lr: 1e-5, optimiser: adamw}
evaluate:
  prompts: {use: text, path: prompts.txt}
  rewards: [red]
runtime: {threads: 1, tracking: none, encode_batch: 4, device: cpu}
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [vote(f"a cat {i}", jpeg(2 * i), jpeg(2 * i + 1), float(i % 3 > 0)) for i in range(15)]
    write(tmp_path / "pairs.parquet", [*rows, vote("a tie", jpeg(900), jpeg(901), 0.5)])
    (tmp_path / "prompts.txt").write_text("A CAT 3\nanother prompt\n")
    (tmp_path / "red.py").write_text(SLOW.replace("SECONDS", "0"))
    trust(monkeypatch, tmp_path / "red.py")
    path = tmp_path / "pictures.yaml"
    path.write_text(SPEC)
    return path


def batches() -> list[int]:
    file = Path("batches.txt")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_an_audit_leaves_a_page_data_and_a_summary(spec, capfd):
    said = smpo(capfd, "data", "audit", spec)
    assert said.code == 0, said.err
    assert "a training prompt that is also evaluated on" in said.out and "a tie" in said.out
    assert re.search(r"red agrees with \d+\.\d% \[.*\] of 15 labels", said.out)
    (folder,) = Path("runs/pictures").glob("audit-*")
    found = json.loads((folder / "audit.json").read_text())
    named = {one["name"]: one["count"] for one in found["findings"]}
    assert named["leaked_prompt"] == 1 and named["tie"] == 1
    assert found["margins"]["pairs"] == 15 and sum(found["margins"]["counts"]) == 15
    assert found["disputed"][0]["note"].startswith("scores ")
    assert "red agrees with the label" in (folder / "audit.html").read_text()
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events == ["start", "dataset", "artefact", "artefact", "finish"]

    told = json.loads(smpo(capfd, "data", "audit", spec, "--json", "--out", "elsewhere").out)
    assert told["findings"] == found["findings"] and Path("elsewhere/audit.html").exists()
    assert sum(batches()) == 30, "the second audit scores nothing again"


def test_the_plane_can_be_audited_too(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    said = smpo(capfd, "data", "audit", "small.yaml")
    assert said.code == 0, said.err
    assert "the data has no pictures" in said.out and "200 pairs" in said.out


def test_a_second_scoring_costs_nothing(spec, capfd):
    said = smpo(capfd, "score", spec)
    assert said.code == 0, said.err
    assert "30 computed, 0 known before, of 30 for 15 pairs" in said.out and "dtype float32" in said.out
    assert batches() == [4] * 7 + [2]
    again = json.loads(smpo(capfd, "score", spec, "--json").out)
    assert (again["computed"], again["wanted"], sum(batches())) == (0, 30, 30)
    assert again["stats"]["count"] == 30 and again["stats"]["low"] < again["stats"]["mean"] < again["stats"]["high"]
    assert again["provenance"][0]["reward"] == {"use": "red"} and again["provenance"][0]["revision"] is None


def test_another_reward_can_be_named(spec, capfd):
    refused = smpo(capfd, "score", spec, "--reward", "redd")
    assert refused.code == 2 and "did you mean `red`?" in refused.err
    assert smpo(capfd, "score", spec, "--set", "reward=null", "--set", "smoothing=votes").code == 1
    assert smpo(capfd, "score", spec, "--set", "smoothing=votes", "--reward", "red").code == 0


def test_a_killed_scoring_loses_one_batch_at_most(spec, capfd):
    (spec.parent / "red.py").write_text(SLOW.replace("SECONDS", "0.15"))
    process = subprocess.Popen(
        [sys.executable, "-m", "smpo.cli.main", "score", str(spec), "--json", "--trust-code"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(batches()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begun = sum(batches())
    kept = sqlite3.connect("runs/cache/scores.db").execute("SELECT count(*) FROM score").fetchone()[0]
    assert 8 <= kept < 30 and begun - kept <= 4
    (spec.parent / "red.py").write_text(SLOW.replace("SECONDS", "0"))
    done = json.loads(smpo(capfd, "score", spec, "--json", "--trust-code").out)
    assert done["computed"] == 30 - kept


def test_a_store_whose_name_is_torn_goes_by_its_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    (file,) = Path("runs/cache/prompts").glob("*/key.txt")
    file.write_bytes(b"pla\xe9")
    listed = json.loads(smpo(capfd, "cache", "list", "small.yaml", "--json").out)
    assert file.parent.name in {one["key"] for one in listed["entries"]}


def test_caches_are_listed_verified_mended_and_cleaned(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "cache", "list", "small.yaml").code == 3
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    listed = json.loads(smpo(capfd, "cache", "list", "small.yaml", "--json").out)
    kinds = {one["kind"]: one for one in listed["entries"]}
    assert set(kinds) == {"latents", "prompts", "scores"} and listed["strays"] == []
    assert kinds["scores"]["rows"] > 300 and all(one["bytes"] > 0 for one in kinds.values())
    assert "B in runs/cache" in smpo(capfd, "cache", "list", "runs/cache").out

    sound = smpo(capfd, "cache", "verify", "small.yaml")
    assert sound.code == 0 and "is what was written" in sound.out
    (shard,) = Path("runs/cache/latents").glob("*/*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit
    broken = smpo(capfd, "cache", "verify", "small.yaml")
    assert broken.code == 1 and "has other content than was written" in broken.out and shard.name in broken.out
    mended = smpo(capfd, "cache", "verify", "small.yaml", "--repair")
    assert mended.code == 0 and "computed again" in mended.out, mended.err
    (new,) = Path("runs/cache/latents").glob("*/*.safetensors")
    assert new.stat().st_size >= len(content) // 2, "under the same name if it came out bit for bit the same"
    assert smpo(capfd, "cache", "verify", "small.yaml").code == 0

    stray = new.with_name("0" * 24 + ".safetensors")
    stray.write_bytes(b"left by a killed writer")
    assert "1 files deleted" in smpo(capfd, "cache", "clean", "runs/cache").out and not stray.exists()
    assert smpo(capfd, "cache", "clean", "runs/cache", "--what", "latentz").code == 1
    assert smpo(capfd, "cache", "clean", "runs/cache", "--what", "latents", "--what", "scores").code == 0
    left = json.loads(smpo(capfd, "cache", "list", "runs/cache", "--json").out)
    assert {one["kind"] for one in left["entries"]} == {"prompts"}
    assert smpo(capfd, "run", "small.yaml", "-q", "--again").code == 0, "everything can be computed again"


@pytest.mark.parametrize("victim", ["latents/*/index.sqlite", "scores.db"])
def test_a_damaged_index_is_discarded_and_made_again(tmp_path, monkeypatch, capfd, victim):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL_PLANE)
    assert smpo(capfd, "score", "small.yaml").code == 0
    assert smpo(capfd, "run", "small.yaml", "-q").code == 0
    (file,) = Path("runs/cache").glob(victim)
    file.write_bytes(b"not a database at all" * 200)
    for tail in ("-wal", "-shm"):
        file.with_name(file.name + tail).unlink(missing_ok=True)
    assert smpo(capfd, "cache", "verify", "runs/cache").code == 1
    assert smpo(capfd, "cache", "verify", "runs/cache", "--repair").code == 0
    assert smpo(capfd, "cache", "verify", "runs/cache").code == 0
    assert smpo(capfd, "run", "small.yaml", "-q", "--again").code == 0
