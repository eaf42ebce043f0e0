"""Of several processes the main one alone writes into the run's folder: lock, checkpoints and all side files."""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from smpo.app.run.checkpoint_schedule import roll_back
from smpo.engine.checkpoints import checkpoint
from tests.cli.words import SMALL_PLANE
from tests.devices.launching import SMPO, only_run, ran
from tests.paths import python_path

RECORDER = """\
import os, sys

rank, log = os.environ.get("RANK", "launcher"), os.open(os.environ["WRITES"], os.O_WRONLY | os.O_APPEND)

def record(event, arguments):
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []
    else:
        paths = arguments[:{"os.rename": 2, "os.link": 2, "os.symlink": 2}.get(event, 1)] if event in CHANGES else []
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            os.write(log, f"{rank} {os.path.abspath(os.fsdecode(path))}\\n".encode())

CHANGES = {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}
sys.addaudithook(record)
"""
"""Python imports it when it starts. safetensors opens files unseen; each lies in a folder that Python has made."""

POISON = """\
import os
from dataclasses import replace
from typing import Literal

from smpo.api import register
from smpo.components.objectives import SmPO


@register
class Poisoned(SmPO):
    \"\"\"Not a number for one pair of process 1, when it is called for the second time.\"\"\"
    use: Literal["poisoned"] = "poisoned"

    def __call__(self, predicted, p):
        out = super().__call__(predicted, p)
        CALLS.append(None)
        if os.environ.get("RANK") != "1" or len(CALLS) != 2:
            return out
        loss = out.loss.clone()
        loss[2] = float("nan")
        return replace(out, loss=loss)


CALLS = []
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run's folder, after a failure and a resumption with sharded weights; by process, the files it changed
    there."""
    folder = tmp_path_factory.mktemp("writers")
    (folder / "sitecustomize.py").write_text(RECORDER)
    (folder / "poisoned.py").write_text(POISON)
    spec = SMALL_PLANE.replace("use: smpo,", "use: poisoned,") + "uses: [./poisoned.py]\n"
    (folder / "small.yaml").write_text(spec)
    (folder / "writes.txt").touch()
    settings = (
        "checkpoint_every=1", "keep=2", "background_checkpoints=true", "preview_every=2", "preview_images=4",
        "encode_batch=8",
    )  # fmt: skip
    words = (*SMPO, "run", "small.yaml", "--trust-code", "--devices=2", *(f"--set=runtime.{one}" for one in settings))
    with_recorder = {"PYTHONPATH": python_path(folder), "WRITES": str(folder / "writes.txt")}
    said = ran(*words, folder=folder, **with_recorder)
    assert said.returncode == 1 and "the loss of 1 pairs is not finite" in said.stderr, said.stderr
    other = ("--set=runtime.on_nan=roll-back", "--set=runtime.sharding=fsdp")
    said = ran(*words, "--resume", *other, folder=folder, **with_recorder)
    assert said.returncode == 0, said.stderr
    found = only_run(folder)
    changed: dict[str, set[str]] = {}
    for line in (folder / "writes.txt").read_text().splitlines():
        process, _, path = line.partition(" ")
        if Path(path).is_relative_to(found):
            changed.setdefault(process, set()).add(str(Path(path).relative_to(found)))
    return found, changed


def test_the_main_process_alone_writes(run):
    folder, changed = run
    # Pictures that a process has drawn pass to the main one through a folder that is gone afterwards.
    drawn = {path for path in changed["1"] if path == "drawn" or path.startswith("drawn/")}
    assert drawn and changed["1"] == drawn and not (folder / "drawn").exists()
    assert "launcher" not in changed
    written = {path.name.removeprefix(".") for path in folder.iterdir() if path.is_file()} - {"lock"}
    assert {
        "lock.json",
        "status.json",
        "cost.json",
        "left_out.json",
        "autopsy.json",
        "evaluation.json",
    } <= written
    for name in written:
        assert any(name in path for path in changed["0"]), f"{name}: the recorder missed who wrote it"


def test_the_autopsy_has_the_pair_of_whichever_process(run):
    folder, _ = run
    for update in json.loads((folder / "left_out.json").read_text())["updates"]:
        autopsy = json.loads((folder / f"autopsy/update-{update['last']:08d}/autopsy.json").read_text())
        (pair,) = autopsy["pairs"]
        assert pair["values"]["loss"] == "nan" and pair["prompt"]


def test_rolling_back_waits_for_the_checkpoint_that_is_being_written(monkeypatch):
    """By the main process, in the background: another one would read the checkpoint before it."""
    order = []
    keeper = SimpleNamespace(wait=lambda: order.append("written"))
    monkeypatch.setattr(checkpoint, "restore", lambda *_, **how: order.append("read") or checkpoint.Restored(3))
    rolled = MagicMock()
    rolled.liveness.barrier = lambda: order.append("met")
    assert roll_back(rolled, keeper) == 3
    assert order == ["written", "met", "read"]
