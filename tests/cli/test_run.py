"""`smpo run` as a person types it, on the plane world: results, records, refusals, interruption, resumption."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.words import SMALL_PLANE, smpo
from tests.double import ADAMW, LOGGED, WEIGHTS, in_double


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def only_run(folder):
    (run,) = folder.glob("runs/small/*-1")
    return run


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_behind_and_is_not_repeated(spec, capfd):
    said = smpo(capfd, "run", spec)
    assert said.code == 0, said.err
    assert "win rate [95 %]" in said.out and "plane-radius*" in said.out, "the reward that made the labels is marked"
    run = only_run(spec.parent)
    assert f"smpo show {run.relative_to(spec.parent)}" in said.out and "smpo ui" not in said.out, "no MLflow here"
    for name in (
        "spec.yaml", "resolved.yaml", "lock.json", "plan.json", "metrics.jsonl", "evaluation.json", "data_report.json",
        "samples/before_after.png", "model/model.safetensors", "model/README.md",
        "checkpoints/step-00000004/weights.safetensors",
    ):  # fmt: skip
        assert (run / name).exists(), name
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    steps = [line["step"] for line in metrics(run) if "train/loss" in line]
    assert steps == [1, 2, 3, 4]
    assert metrics(run)[0]["train/loss"] == pytest.approx(0.693147, abs=1e-5)
    lock = json.loads((run / "lock.json").read_text())
    assert lock["packages"]["torch"] and lock["data"]["digest"] and lock["weights"]["model"]

    again = smpo(capfd, "run", spec)
    assert again.code == 1
    assert "this experiment was run before" in again.err and "--again" in again.err
    assert smpo(capfd, "run", run / "resolved.yaml").code == 1, "what was resolved is the same experiment"
    assert smpo(capfd, "run", spec, "--again", "-q").code == 0
    assert len(list(spec.parent.glob("runs/small/*-2"))) == 1

    shown = smpo(capfd, "show", run.name.split("-")[0])
    assert shown.code == 0 and "win rate" in shown.out and "use: smpo" in shown.out


def test_the_same_spec_gives_the_same_numbers(spec, capfd):
    smpo(capfd, "run", spec, "-q")
    smpo(capfd, "run", spec, "-q", "--again")
    one, two = (json.loads((run / "evaluation.json").read_text()) for run in sorted(spec.parent.glob("runs/small/*-*")))
    assert one["judgements"] == two["judgements"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_resumed_to_the_same_end(spec, capfd, monkeypatch, number):
    assert smpo(capfd, "run", spec, "-q", "--set", "name=straight").code == 0

    from smpo.tracking.console import Console

    def step(self, report, total):
        if report.step == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Console, "step", step)
        said = smpo(capfd, "run", spec)
    assert said.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number] and "--resume" in said.err
    run = only_run(spec.parent)
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"

    refused = smpo(capfd, "run", spec)
    assert refused.code == 1 and "was stopped at step 2" in refused.err and "--resume" in refused.err

    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0
    assert [line["step"] for line in metrics(run) if "train/loss" in line] == [1, 2, 3, 4], "no fork, no gap"
    (straight,) = spec.parent.glob("runs/straight/*-1")
    weights = [(r / "model/model.safetensors").read_bytes() for r in (run, straight)]
    assert weights[0] == weights[1], "bit for bit"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--set", "train.stepss=3"], 2, "did you mean `steps`?"),
        (["--set", "objective=smppo"], 2, "did you mean `smpo`?"),
        (["--set", "model.weights=nowhere/at/all"], 3, "neither a folder here nor a hub id"),
        (["--set", "data.path=nowhere.safetensors"], 3, "there is no file `nowhere.safetensors`"),
        (["--set", "runtime.devices=3"], 2, "can't be dealt evenly to 3 devices"),
        (["--set", "train.warmup=9"], 2, "longer than the run"),
        (["--set", "reward=null"], 2, "no reward is chosen"),
        (["--set", "train.precision=fp16", "--set", "runtime.device=cpu"], 3, "fp16 needs a GPU"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_spent(spec, capfd, words, code, expected):
    said = smpo(capfd, "run", spec, *words)
    assert said.code == code, said.err
    assert expected in said.err and "Traceback" not in said.err
    assert not (spec.parent / "runs").exists()


def test_a_missing_spec_says_so(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = smpo(capfd, "run", "nowhere.yaml")
    assert said.code in (2, 3) and "nowhere.yaml" in said.err


def test_a_ragged_micro_batch_trains_the_same_policy(spec, capfd, monkeypatch):
    """16 pairs as 5 + 5 + 5 + 1: planned with a warning, run with the update that 16 at once give."""
    planned = smpo(capfd, "plan", spec, "-s", "runtime.micro_batch=5")
    assert planned.code == 0 and "(3 × micro 5 + 1) = 16" in planned.out
    assert "warning" in planned.out and "does not divide the 16 pairs" in planned.out
    in_double(monkeypatch)
    losses, weights = [], []
    for runs, micro in (("whole", 16), ("ragged", 5)):
        words = (
            f"runtime.runs={runs}",
            f"runtime.micro_batch={micro}",
            "train.lr=1e-2",
            "evaluate=null",
            ADAMW,
        )
        assert smpo(capfd, "run", spec, "-q", *(f"--set={word}" for word in words)).code == 0
        (run,) = spec.parent.glob(f"{runs}/small/*-1")
        losses.append([line["train/loss"] for line in metrics(run) if "train/loss" in line])
        weights.append(load_file(run / "model" / "model.safetensors"))
    assert losses[0] == pytest.approx(losses[1], **LOGGED) and len(losses[0]) == 4
    assert max(losses[0][1:]) - losses[0][0] > 0.01 or losses[0][0] - min(losses[0]) > 0.01, "it trains"
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=WEIGHTS)


def test_the_best_checkpoint_is_kept_beside_the_newest(spec, capfd):
    """Looks at held-out pairs say which; it is there when training has long gone on."""
    words = ("train.holdout=40", "runtime.diagnose_every=1", "runtime.keep_best=margin", "runtime.keep=1")
    said = smpo(capfd, "run", spec, *(word for one in (*words, "train.lr=0.02") for word in ("--set", one)))
    assert said.code == 0, said.err
    assert "the best of held-out margin so far" in said.err
    run = only_run(spec.parent)
    looks = {line["step"]: line["holdout/margin"] for line in metrics(run) if "holdout/margin" in line}
    best = max(looks, key=lambda step: (looks[step], -step))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {f"step-{s:08d}" for s in (best, 4)}

    judged = smpo(capfd, "eval", f"best={run}@best", f"last={run}@4", f"saved={run}", "--out", "found")
    assert judged.code == 0, judged.err
    scores = json.loads((spec.parent / "found/contest.json").read_text())["scores"]
    assert scores["last"] == scores["saved"], "the last checkpoint is what the run has saved"
    assert (scores["best"] == scores["last"]) == (best == 4)
    missing = smpo(capfd, "eval", f"{run}@77")
    assert missing.code == 1 and "has no checkpoint `77`: it has" in missing.err

    refused = smpo(capfd, "run", spec, "--set", "runtime.keep_best=margin")
    assert refused.code == 2 and "none are held out" in refused.err
