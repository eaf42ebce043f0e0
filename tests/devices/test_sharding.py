"""A policy that is dealt out over processes (FSDP2) trains to the same weights, and its checkpoints fit any number."""

import json
import signal
import time

import pytest

from tests.cli.words import smpo
from tests.devices.launching import SHAPES, SMPO, only_run, ran, start, trained, write_spec

SETTINGS = (
    "train.steps=30", "train.ema=0.9", "train.clip=1.0", "train.holdout=20", "runtime.checkpoint_every=7",
    "runtime.preview_every=10", "inversion.steps=100",
)  # fmt: skip
FSDP = ("--devices", "2", "--set=runtime.sharding=fsdp")
TOLERANCE = 2e-5
"""Of the largest weight, as between one process and two of plain DDP: sums are rounded in another order."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    write_spec(folder)
    said = ran(*SMPO, "run", "small.yaml", "-q", *(f"--set={one}" for one in SETTINGS), folder=folder)
    assert said.returncode == 0, said.stderr
    return only_run(folder)


@pytest.fixture
def words(tmp_path, alone):
    write_spec(tmp_path)
    cache = f"--set=runtime.cache={alone.parents[1] / 'cache'}"
    return ("run", "small.yaml", "-q", cache, *(f"--set={one}" for one in SETTINGS))


def updates(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "train/loss" in line]


def stopped(folder, *words):
    """Asked to stop (SIGTERM) after an update or two; it leaves a checkpoint of the last."""
    process = start(words, folder)
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        found = list(folder.glob("runs/small/*-1/metrics.jsonl"))
        if found and len(found[0].read_text().splitlines()) > 1:  # thirty updates take some seconds
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    said = process.communicate(timeout=400)[1]
    assert process.returncode == 143 and "Traceback" not in said, said
    run = only_run(folder)
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert 0 < len(updates(run)) < 30
    return run


def same(run, alone):
    assert updates(run) == list(range(1, 31)), "no fork, no gap"
    one, two = trained(alone), trained(run)
    assert one.keys() == two.keys(), "weights and their average"
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    assert max(float((two[name] - one[name]).abs().max()) for name in one) < TOLERANCE * largest
    judged = [json.loads((r / "evaluation.json").read_text())["headline"] for r in (alone, run)]
    assert judged[0] == judged[1], "the average was evaluated"


def test_saved_on_two_and_resumed_on_one(tmp_path, alone, words):
    run = stopped(tmp_path, *SMPO, *words, *FSDP)
    said = ran(*SMPO, *words, "--resume", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    same(run, alone)


@pytest.mark.slow
def test_saved_on_one_and_resumed_on_two(tmp_path, alone, words):
    run = stopped(tmp_path, *SMPO, *words)
    said = ran(*SMPO, *words, "--resume", *FSDP, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    same(run, alone)
    cost, found = (json.loads((run / name).read_text()) for name in ("cost.json", "evaluation.json"))
    assert cost["pictures"] >= len(found["prompts"]), "those of a policy that was put together again are counted, too"


@pytest.mark.slow
@pytest.mark.fault(
    "devices", "a loss that is not a number, on one of two processes with a share each",
    "both return to the last checkpoint and leave the update out",
)  # fmt: skip
def test_rolling_back_together(tmp_path, alone, words):
    """The poison is a weight that one update makes infinite: too high a rate."""
    poison = ("--set=train.lr=1e30", "--set=train.clip=null", "--set=runtime.on_nan=roll-back")
    said = ran(*SMPO, *words, *FSDP, *poison, "--set=runtime.nan_limit=2", folder=tmp_path)
    assert said.returncode == 1 and "left out" in said.stderr and "Traceback" not in said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["model.lora.rank=4"]], ids=["whole network", "LoRA"])
def test_a_unet(tmp_path, settings):
    """Blocks are dealt out one by one; of a LoRA only the adapter is."""
    (tmp_path / "small.yaml").write_text(SHAPES)
    words = ("run", "small.yaml", "-q", *(f"--set={one}" for one in ("runtime.micro_batch=2", *settings)))
    for more in (["--set=runtime.runs=alone", "--set=runtime.cache=runs/cache"], FSDP):
        said = ran(*SMPO, *words, *more, folder=tmp_path, timeout=600)
        assert said.returncode == 0, said.stderr
    one, two = (trained(next(tmp_path.glob(f"{runs}/small/*-1"))) for runs in ("alone", "runs"))
    # Three updates of lr 1e-4 at most, in opposite directions where a gradient is rounding.
    assert max(float((two[name] - one[name]).abs().max()) for name in one) < 3 * 2 * 1e-4


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.optimiser=adafactor", "`train.optimiser`"),
        ("runtime.shadow_weights=true", "`runtime.shadow_weights`"),
        ("runtime.compile=true", "`runtime.compile`"),
    ],
)
def test_what_has_not_been_tried_together_is_refused(tmp_path, capfd, setting, said):
    spec = write_spec(tmp_path)
    answer = smpo(capfd, "check", spec, "--set", "runtime.sharding=fsdp", "--set", setting)
    assert answer.code == 2 and said in answer.err and "haven't been brought together" in answer.err
