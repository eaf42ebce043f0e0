"""Short runs of the command line on the device, held against the CPU's: training, evaluation, and what is written."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest

from tests.cli.words import smpo
from tests.devices.launching import SHAPES, SMPO, only_run, ran

pytestmark = pytest.mark.gpu
SPEC = (
    SHAPES + "evaluate: {prompts: {use: shapes-prompts}, rewards: [shapes-reward], steps: 3, guidance: 3, limit: 18}\n"
)
FLOAT = 2e-3
"""Of a prediction's error: TensorFloat-32 convolutions (5e-4), through the inversion's passes and three updates."""
HALF = 0.1
"""Of a prediction's error: sixteen bits keep three digits of each number, and the inversion's passes add up."""


def words(folder, *settings):
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(SPEC)
    places = (f"runtime.runs={folder / 'runs'}", f"runtime.cache={folder / 'cache'}")
    return ["run", folder / "small.yaml", "-q", *(f"--set={one}" for one in (*settings, *places))]


def run(folder, capfd, *settings):
    said = smpo(capfd, *words(folder, *settings))
    assert said.code == 0, said.err
    return only_run(folder)


def curve(found):
    lines = [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


def errors(found):
    """Of winner and loser at each update."""
    return [(line["train/error/winner"], line["train/error/loser"]) for line in curve(found)]


@pytest.fixture(scope="module")
def on_a_cpu(tmp_path_factory):
    """Errors by what is set of the model, from a process of its own: accelerate has one device a process."""
    known = {}

    def followed(*settings):
        if settings not in known:
            folder = tmp_path_factory.mktemp("cpu")
            said = ran(*SMPO, *words(folder, "runtime.device=cpu", *settings), folder=folder)
            assert said.returncode == 0, said.stderr
            known[settings] = errors(only_run(folder))
        return known[settings]

    return followed


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ("", FLOAT),
        ("runtime.inversion_batch=3 runtime.micro_batch=2", FLOAT),
        ("runtime.gradient_checkpointing=true runtime.offload_reference=true", FLOAT),
        ("train.precision=bf16", HALF),
        ("train.precision=fp16", HALF),
        ("train.precision=fp16 runtime.shadow_weights=true", HALF),
        ("train.precision=bf16 runtime.channels_last=true runtime.even_batches=true", HALF),
        ("train.precision=bf16 runtime.gradient_checkpointing=selective runtime.attention=cudnn", HALF),
        ("train.precision=bf16 train.optimiser=adafactor", HALF),
        ("model.lora.rank=4 train.precision=fp16", HALF),
    ],
)
def test_a_gpu_trains_as_a_cpu_does(tmp_path, capfd, device, numbers, on_a_cpu, settings, tolerance):
    if device.type == "cpu" and "fp16" in settings:
        pytest.skip("fp16 is refused on the CPU")
    sets = settings.split()
    expected = on_a_cpu(*(one for one in sets if one.startswith("model")))
    found = run(tmp_path, capfd, f"runtime.device={device.type}", *sets)
    evaluation = json.loads((found / "evaluation.json").read_text())
    lock = json.loads((found / "lock.json").read_text())
    numbers()
    assert len(errors(found)) == len(expected) == 3
    for here, there in zip(errors(found), expected, strict=True):
        assert here == pytest.approx(there, rel=tolerance)
    assert len(evaluation["prompts"]) == 18 and device.type in json.dumps(lock)


def test_eight_bits_of_optimiser(tmp_path, capfd, device, numbers, on_a_cpu):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes isn't installed: `pip install 'smpo[8bit]'`")
    sets = ("train.precision=bf16", "train.optimiser=adamw-8bit")
    found = errors(run(tmp_path, capfd, f"runtime.device={device.type}", *sets))
    numbers()
    assert found[0] == pytest.approx(on_a_cpu()[0], rel=HALF), "the first is from before any step"


def test_fp16_repeats_what_overflows_and_says_so(tmp_path, capfd, device, numbers):
    """A beta of a million makes gradients that fp16 can't hold at its first loss scale."""
    if device.type == "cpu":
        pytest.skip("fp16 is refused on the CPU; tests/engine/test_overflow.py plants the overflow there")
    found = run(tmp_path, capfd, "runtime.device=cuda", "train.precision=fp16", "objective.beta=1000000")
    lines = curve(found)
    numbers()
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["train/skipped_updates"] > 0 and lines[0]["train/loss_scale"] < 65536
    assert all(math.isfinite(line["train/grad_norm"]) for line in lines)
    assert "attempts at an update were skipped" in (found / "model/README.md").read_text()
