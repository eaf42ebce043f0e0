"""Short runs on a CUDA device, held against the CPU's. For whoever has one: `pytest -m gpu`."""

import importlib.util
import json

import pytest

from tests.devices.launching import SHAPES, SMPO, only_run, ran

pytestmark = pytest.mark.gpu
SPEC = (
    SHAPES
    + "evaluate: {prompts: {use: shapes-prompts}, rewards: [shapes-reward], steps: 3, guidance: 3, limit: 18}\n"
)
HALF = 0.1
"""Of a prediction's error: sixteen bits keep three digits of each number, and the inversion's passes add up."""


def followed(folder, *settings):
    """Errors of winner and loser at each update."""
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(SPEC)
    said = ran(
        *SMPO, "run", "small.yaml", "-q", *(f"--set={one}" for one in settings), folder=folder, timeout=900
    )
    assert said.returncode == 0, said.stderr
    run = only_run(folder)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert len(evaluation["prompts"]) == 18
    return [(line["train/error/winner"], line["train/error/loser"]) for line in lines if "train/loss" in line]


@pytest.fixture(scope="module")
def on_a_cpu(tmp_path_factory):
    return followed(tmp_path_factory.mktemp("cpu"), "runtime.device=cpu")


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ("", 2e-3),
        ("runtime.inversion_batch=3 runtime.micro_batch=2", 2e-3),
        ("runtime.gradient_checkpointing=true runtime.offload_reference=true", 2e-3),
        ("train.precision=bf16", HALF),
        ("train.precision=fp16", HALF),
        ("train.precision=fp16 runtime.shadow_weights=true", HALF),
        (
            "train.precision=bf16 runtime.compile=true runtime.channels_last=true runtime.even_batches=true",
            HALF,
        ),
        ("train.precision=bf16 runtime.gradient_checkpointing=selective runtime.attention=cudnn", HALF),
        ("train.precision=bf16 train.optimiser=adafactor", HALF),
    ],
)
def test_a_gpu_trains_as_a_cpu_does(tmp_path, on_a_cpu, settings, tolerance):
    found = followed(tmp_path, "runtime.device=cuda", *settings.split())
    assert len(found) == len(on_a_cpu) == 3
    for here, there in zip(found, on_a_cpu, strict=True):
        assert here == pytest.approx(there, rel=tolerance)


def test_eight_bits_of_optimiser(tmp_path, on_a_cpu):
    assert importlib.util.find_spec("bitsandbytes"), "`pip install bitsandbytes` first"
    found = followed(tmp_path, "runtime.device=cuda", "train.precision=bf16", "train.optimiser=adamw-8bit")
    assert found[0] == pytest.approx(on_a_cpu[0], rel=HALF), "the first is from before any step"


def test_a_lora_in_sixteen_bits(tmp_path):
    (first, *_) = followed(tmp_path / "cpu", "runtime.device=cpu", "model.lora.rank=4")
    found = followed(tmp_path / "gpu", "runtime.device=cuda", "model.lora.rank=4", "train.precision=fp16")
    assert found[0] == pytest.approx(first, rel=HALF)
