"""What caches lack is scored and encoded by all processes of a run, to the bits of one."""

import json
import sqlite3
import time
from contextlib import closing, suppress

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.words import SMALL_PLANE
from tests.devices.launching import SHAPES, SMPO, kill, ran, start

WORDS = ("run", "small.yaml", "-q", "--set=runtime.encode_batch=4")


def scores(cache):
    with closing(sqlite3.connect(cache / "scores.db")) as database:
        return sorted(database.execute("SELECT image, prompt, value FROM score"))


def rows(cache):
    """Every cached row by the name of its tensor, and how many files hold them."""
    found, files = {}, 0
    for folder in [*cache.glob("latents/*"), *cache.glob("prompts/*")]:
        with closing(sqlite3.connect(folder / "index.sqlite")) as index:
            shards = dict(index.execute("SELECT id, name FROM shard"))
            places = index.execute("SELECT id, shard, row FROM place").fetchall()
        tensors = {shard: load_file(folder / name) for shard, name in shards.items()}
        files += len(tensors)
        for name, shard, row in places:
            found |= {(folder.name, name, key): tensor[row] for key, tensor in tensors[shard].items()}
    return found, files


def test_two_processes_fill_the_caches_of_one(tmp_path):
    (tmp_path / "small.yaml").write_text(SHAPES)
    for more in (("--devices=2", "--set=runtime.cache=two"), ("--set=runtime.cache=one",)):
        said = ran(*SMPO, *WORDS, f"--set=runtime.runs={more[-1][-3:]}", *more, folder=tmp_path)
        assert said.returncode == 0, said.stderr
    assert scores(tmp_path / "one") == scores(tmp_path / "two") and len(scores(tmp_path / "one")) == 32
    for cache in ("one", "two"):
        with closing(sqlite3.connect(tmp_path / cache / "scores.db")) as database:
            ((facts,),) = database.execute("SELECT facts FROM provenance")
        assert {"reward", "dtype", "revision", "device"} <= json.loads(facts).keys(), "as `smpo score` leaves it"
    (one, shards), (two, shared) = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert shared == 2 * shards, "each process has written some of the images and some of the prompts"


FAILING = """\
import os, time
from typing import Literal
from smpo.api import Reward, register

@register
class Failing(Reward):
    \"\"\"Not a number in one of the processes; slow, so that the other is still at work then.\"\"\"
    use: Literal["failing"] = "failing"
    bad: int
    def load(self, runtime):
        return Scorer(self.bad)

class Scorer:
    key = "failing"
    def __init__(self, bad):
        self.bad = str(bad)
    def __call__(self, pictures, prompts):
        import torch
        time.sleep(0.2)
        wrong = os.environ["RANK"] == self.bad
        return torch.tensor([float("nan") if wrong else float(point[0]) for point in pictures])
"""


@pytest.mark.parametrize("bad", [0, 1])
def test_one_of_them_fails_in_words(tmp_path, bad):
    """Said once, and the other doesn't go on with its share, an hour perhaps, before it looks."""
    (tmp_path / "failing.py").write_text(FAILING)
    spec = SMALL_PLANE.replace("reward: plane-radius", f"reward: {{use: failing, bad: {bad}}}\nuses: [./failing.py]")
    (tmp_path / "small.yaml").write_text(spec.replace("limit: 200", "limit: 2000"))
    began = time.monotonic()
    said = ran(*SMPO, *WORDS, "--trust-code", "--devices=2", folder=tmp_path)
    assert said.returncode == 1 and time.monotonic() - began < 60, "its share would take 100 seconds"
    assert said.stderr.startswith(
        "error: process 1 of 2 failed: failing gave nan" if bad else "error: failing gave nan"
    )
    assert said.stderr.count("error") == said.stderr.count("help") == 1 and "frame #" not in said.stderr, said.stderr


@pytest.mark.slow
@pytest.mark.fault(
    "devices", "SIGKILL of one of two processes while they score and encode",
    "the other names it and ends; computed rows are kept, and `--resume` finishes the run",
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_them_dies(tmp_path, rank):
    (tmp_path / "small.yaml").write_text(SHAPES.replace("limit: 16", "limit: 400"))
    words = (*WORDS, "--set=runtime.encode_batch=2")
    process = start((*SMPO, *words, "--devices=2"), tmp_path)
    kill(process, rank, once=lambda: known(tmp_path) > 20)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - began < 60 and process.returncode == 1
    assert f"error: process {rank} of 2" in said and "Traceback" not in said
    kept = known(tmp_path)
    assert 20 < kept < 800

    said = ran(*SMPO, *words, "--devices=2", "--resume", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert known(tmp_path) == 800


def known(folder):
    with suppress(sqlite3.OperationalError):  # there is no cache yet, or no table in it
        return len(scores(folder / "runs/cache"))
    return 0
