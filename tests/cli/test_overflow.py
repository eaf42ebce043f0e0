"""Loss scaling from the command line, on a CPU: the scaler is fp16's own, the overflow is planted in the gradients."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from smpo.app.build import build as assemble
from tests.cli.test_nan import poison, steps, the_run
from tests.cli.words import SMALL_PLANE, smpo

FEW = ("--set", "train.steps=6", "--set", "evaluate=null", "--set", "train.ema=0.9")
EACH = ("--set", "runtime.checkpoint_every=1", "--set", "runtime.keep=9")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def scaled(monkeypatch, limit):
    """Every run has a loss scale, and gradients beyond `limit` become infinite."""
    scaler, trained = torch.amp.GradScaler, assemble.trainable_parameters

    def hooked(policy):
        found = trained(policy)
        for parameter in found.values():
            parameter.register_hook(lambda grad: torch.where(grad.abs() > limit, math.inf, grad))
        return found

    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, growth_interval=1))
    monkeypatch.setattr(assemble, "trainable_parameters", hooked)


def curve(run, name):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def weights(run):
    return load_file(run / "model/model.safetensors")


@pytest.mark.fault(
    "faults", "gradients that overflow in fp16",
    "the update is repeated with a smaller loss scale; curve, console, `doctor` and model card tell how often",
)  # fmt: skip
def test_overflow_is_repeated_counted_and_told(spec, capfd, monkeypatch):
    assert smpo(capfd, "run", spec, *FEW, "-q", "--set", "name=straight").code == 0
    scaled(monkeypatch, limit=1e5)
    said = smpo(capfd, "run", spec, *FEW)
    assert said.code == 0, said.err
    run = the_run(spec.parent)
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    skipped, shares = curve(run, "train/skipped_updates"), curve(run, "train/skipped_share")
    scales = curve(run, "train/loss_scale")
    assert skipped[0] > 0 and skipped == sorted(skipped) and len(scales) == 6 and scales[0] < 65536
    assert skipped[-1] > skipped[0], "the scale doubles after each finite update, and overflows again"
    for step, (count, share) in enumerate(zip(skipped, shares, strict=True), start=1):
        assert share == pytest.approx(count / (count + step))
    told = " ".join(said.err.split())
    assert "update 1 was repeated" in told and "overflowed in fp16" in told
    ending = f"{int(skipped[-1])} of {int(skipped[-1]) + 6} attempts at an update were skipped"
    assert ending in told
    card = (run / "model/README.md").read_text()
    assert f"| Updates | 6 of 6 applied; {ending}" in card
    assert "Updates" not in (the_run(spec.parent, "straight") / "model/README.md").read_text()
    cost, plain = (json.loads((one / "cost.json").read_text()) for one in (run, the_run(spec.parent, "straight")))
    assert cost["skipped_updates"] == skipped[-1] and cost["pairs"] == plain["pairs"] == 6 * 16
    assert cost["backwards"] == plain["backwards"] * (6 + skipped[-1]) / 6, "each attempt is paid for"
    assert "attempts at updates" in said.out and "skipped_share" in smpo(capfd, "doctor", run).out
    for name, tensor in weights(the_run(spec.parent, "straight")).items():
        assert torch.equal(weights(run)[name], tensor), "a scale that is a power of two rounds nothing here"


def test_a_resumed_run_goes_on_with_scale_and_counts(spec, capfd, monkeypatch):
    scaled(monkeypatch, limit=1e5)
    assert smpo(capfd, "run", spec, *FEW, *EACH, "-q").code == 0
    run = the_run(spec.parent)
    ended, curves = weights(run), [curve(run, f"train/{name}") for name in ("skipped_updates", "loss_scale")]
    kept = json.loads((run / "checkpoints/step-00000002/scaler.json").read_text())
    assert kept["applied_updates"] == 2 and kept["skipped_updates"] == curves[0][1]
    for later in run.glob("checkpoints/step-0000000[3456]"):
        later.rename(run / later.name)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    assert smpo(capfd, "run", spec, *FEW, *EACH, "-q", "--resume").code == 0
    assert [curve(run, f"train/{name}") for name in ("skipped_updates", "loss_scale")] == curves
    for name, tensor in weights(run).items():
        assert torch.equal(ended[name], tensor), name
    assert f"{int(curves[0][-1])} of" in (run / "model/README.md").read_text()


@pytest.mark.fault(
    "faults", "gradients that overflow in fp16 at every loss scale",
    "six attempts at one update, then an error with the cause and the settings that act on it",
)  # fmt: skip
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_run_that_always_overflows_ends_within_a_few_updates(spec, capfd, monkeypatch, on_nan):
    scaled(monkeypatch, limit=0.0)
    said = smpo(capfd, "run", spec, *FEW, "--set", f"runtime.on_nan={on_nan}", "--set", "train.steps=100")
    assert said.code == 1 and "Traceback" not in said.err
    told = " ".join(said.err.split())
    last = {"stop": 1, "skip": 3}[on_nan]
    for words in (
        f"update {last} stopped the run",
        "at every loss scale (65536 down to 2)",
        "precision=bf16",
    ):
        assert words in told, words
    run = the_run(spec.parent)
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    autopsy = json.loads((run / f"autopsy/update-{last:08d}/autopsy.json").read_text())
    assert autopsy["finite"] == {"weights": True, "optimiser": True} and autopsy["pairs"]


@pytest.mark.parametrize(("on_nan", "last"), [("stop", 1), ("skip", 3), ("roll-back", 3)])
def test_a_run_whose_loss_is_nan_from_the_start_ends_within_a_few_updates(spec, capfd, monkeypatch, on_nan, last):
    """In any precision, with the cause: not that policy and reference differ."""
    poison(monkeypatch, *range(1, 100))
    words = ("--set", f"runtime.on_nan={on_nan}", "--set", "runtime.checkpoint_every=5")
    said = smpo(capfd, "run", spec, *FEW, *words, "--set", "train.steps=100")
    told = " ".join(said.err.split())
    assert said.code == 1 and f"update {last} stopped the run" in told, told
    assert "though noise and predictions are finite" in told and "objective.beta" in told
    assert ("3 updates in a row" in told) == (on_nan != "stop")


def test_broken_updates_with_good_ones_between_them_are_no_row(spec, capfd, monkeypatch):
    poison(monkeypatch, 1, 2, 4, 5)
    said = smpo(capfd, "run", spec, *FEW, "-q", "--set", "runtime.on_nan=skip")
    assert said.code == 0, said.err
    assert steps(the_run(spec.parent)) == [3, 6]
    assert "| Updates | 2 of 6 applied; 4 left out" in (the_run(spec.parent) / "model/README.md").read_text()
