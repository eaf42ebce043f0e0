"""Losses that are not numbers, from the command line: stop, skip, roll back, and what is kept for an autopsy."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from smpo.app.run.nan_report import block_of
from smpo.components.objectives import SmPO
from tests.cli.words import SMALL_PLANE, smpo

SIX = ("--set", "train.steps=6", "--set", "evaluate=null")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def poison(monkeypatch, *updates, row=5):
    """The objective gives NaN for one pair when it is asked in these updates, counted over all runs of the test."""
    plain, calls = SmPO.__call__, []

    def poisoned(self, predicted, p):
        out = plain(self, predicted, p)
        calls.append(len(p))
        if len(calls) not in updates:
            return out
        factor = torch.ones_like(out.loss)
        factor[row] = float("nan")
        return replace(out, loss=out.loss * factor)

    monkeypatch.setattr(SmPO, "__call__", poisoned)


def the_run(folder, name="small"):
    (run,) = folder.glob(f"runs/{name}/*-1")
    return run


def steps(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "train/loss" in line]


def weights(run):
    return load_file(run / "model/model.safetensors")


@pytest.mark.fault(
    "faults", "a loss that is not a number, `on_nan: stop`",
    "the update is not applied; pairs, images and gradients are kept; `--resume` goes on to the same end",
)  # fmt: skip
def test_a_poisoned_run_fails_in_words_and_goes_on(spec, capfd, monkeypatch):
    assert smpo(capfd, "run", spec, "-q", "--set", "name=straight").code == 0
    with monkeypatch.context() as patch:
        poison(patch, 3)
        said = smpo(capfd, "run", spec)
    assert said.code == 1 and "Traceback" not in said.err
    for words in ("update 3 stopped the run", "was not applied", "autopsy/update-00000003", "on_nan=skip"):
        assert words in "".join(said.err.splitlines()).replace("  ", " "), words
    run = the_run(spec.parent)
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert (run / "checkpoints/step-00000002").is_dir(), "of the last update that was finished"

    autopsy = json.loads((run / "autopsy/update-00000003/autopsy.json").read_text())
    (pair,) = autopsy["pairs"]
    assert pair["pair"] and isinstance(pair["prompt"], str) and pair["values"]["loss"] == "nan"
    assert 0 <= pair["values"]["t"] <= 999 and autopsy["update"] == 3
    assert autopsy["finite"] == {"weights": True, "optimiser": True}
    assert set(autopsy["gradient_norms"].values()) == {"nan"}, "not made so by clipping: there is one per block"
    with Image.open(run / "autopsy/update-00000003/pairs.png") as picture:
        assert picture.width > 100

    assert smpo(capfd, "run", spec, "--resume", "-q").code == 0
    assert (run / "model/model.safetensors").read_bytes() == (
        the_run(spec.parent, "straight") / "model/model.safetensors"
    ).read_bytes()


@pytest.mark.fault(
    "faults", "losses that are not numbers, `on_nan: skip`",
    "the update is left out and counted; the run ends well, with a bound on how often", times=2,
)  # fmt: skip
def test_broken_updates_are_skipped_and_counted(spec, capfd, monkeypatch):
    poison(monkeypatch, 2, 6)
    said = smpo(capfd, "run", spec, *SIX, "--set", "runtime.on_nan=skip")
    assert said.code == 0, said.err
    run = the_run(spec.parent)
    assert steps(run) == [1, 3, 4, 5], "the curve has a gap where nothing was learnt"
    told = json.loads((run / "left_out.json").read_text())["updates"]
    assert [(one["first"], one["last"], one["by"]) for one in told] == [(2, 2, "skip"), (6, 6, "skip")]
    assert "update 2 is left out" in " ".join(said.err.split()) and (run / "autopsy/update-00000006").is_dir()
    assert (run / "checkpoints/step-00000006").is_dir(), "the last update is left out, the last checkpoint isn't"
    assert all(bool(one.isfinite().all()) for one in weights(run).values())
    doctor = smpo(capfd, "doctor", run)
    assert "2 updates were left out" in doctor.out


def test_a_resumed_run_leaves_out_what_was_left_out(spec, capfd, monkeypatch):
    """The fault was of the moment; the resumed run doesn't meet it again, and must end where the first one did."""
    keep = ("--set", "runtime.on_nan=skip", "--set", "runtime.checkpoint_every=1", "--set", "runtime.keep=9")
    with monkeypatch.context() as patch:
        poison(patch, 3)
        assert smpo(capfd, "run", spec, *SIX, *keep, "-q").code == 0
    run = the_run(spec.parent)
    ended = (run / "model/model.safetensors").read_bytes()
    for later in run.glob("checkpoints/step-0000000[3456]"):
        later.rename(run / later.name)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    assert smpo(capfd, "run", spec, *SIX, *keep, "-q", "--resume").code == 0
    assert (run / "model/model.safetensors").read_bytes() == ended
    assert steps(run) == [1, 2, 4, 5, 6]


@pytest.mark.fault(
    "faults", "a loss that is not a number, `on_nan: roll-back`",
    "the run returns to its last checkpoint, leaves out everything since, and ends well",
)  # fmt: skip
def test_a_run_rolls_back_to_its_checkpoint(spec, capfd, monkeypatch):
    """The same as a run that was never shown updates 3 and 4."""
    straight = (*SIX, "--set", "runtime.on_nan=skip", "--set", "name=straight")
    with monkeypatch.context() as patch:
        poison(patch, 3, 4)
        assert smpo(capfd, "run", spec, *straight, "-q").code == 0
    poison(monkeypatch, 4)
    back = ("--set", "runtime.on_nan=roll-back", "--set", "runtime.checkpoint_every=2")
    said = smpo(capfd, "run", spec, *SIX, *back)
    assert said.code == 0, said.err
    assert "updates 3 to 4 are left out" in " ".join(said.err.split())
    run = the_run(spec.parent)
    assert steps(run) == [1, 2, 3, 5, 6], "what was seen stays in the curve, even where it no longer counts"
    for name, tensor in weights(the_run(spec.parent, "straight")).items():
        assert torch.equal(weights(run)[name], tensor), name


def test_before_the_first_checkpoint_it_rolls_back_to_the_start(spec, capfd, monkeypatch):
    poison(monkeypatch, 2)
    back = ("--set", "runtime.on_nan=roll-back", "--set", "runtime.checkpoint_every=4")
    said = smpo(capfd, "run", spec, *SIX, *back)
    assert said.code == 0 and "updates 1 to 2 are left out" in " ".join(said.err.split()), said.err


def test_going_on_has_a_limit(spec, capfd, monkeypatch):
    poison(monkeypatch, *range(2, 7))
    said = smpo(capfd, "run", spec, *SIX, "--set", "runtime.on_nan=skip", "--set", "runtime.nan_limit=2", "-q")
    assert said.code == 1 and "update 4 stopped the run" in said.err and "nan_limit" in said.err


def test_there_must_be_something_to_roll_back_to(spec, capfd):
    said = smpo(capfd, "check", spec, "--set", "runtime.on_nan=roll-back")
    assert said.code == 2 and "nothing to roll back to" in said.err and "checkpoint_every" in said.err


def test_images_of_the_pairs_are_kept(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    poison(monkeypatch, 2, row=1)
    few = (
        "train.steps=2",
        "train.warmup=0",
        "train.batch=2",
        "data.limit=20",
        "evaluate=null",
        "runtime.tracking=none",
    )
    said = smpo(capfd, "run", "quickstart", *(word for one in few for word in ("--set", one)))
    assert said.code == 1, said.err
    (bundle,) = tmp_path.glob("runs/*/*/autopsy/update-00000002")
    assert {file.name for file in bundle.iterdir()} == {
        "autopsy.json", "pairs.png", "01-winner.png", "01-loser.png",
    }  # fmt: skip
    norms = json.loads((bundle / "autopsy.json").read_text())["gradient_norms"]
    assert any(name.startswith("down_blocks.0.") for name in norms), norms


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight", "down_blocks.0.attentions.1"),
        ("conv_in.weight", "conv_in"),
        ("net.2.weight", "net.2"),
        ("scale", "scale"),
    ],
)
def test_blocks_are_what_a_person_calls_a_block(name, block):
    assert block_of(name) == block
