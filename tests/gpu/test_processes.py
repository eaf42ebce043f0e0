"""Several processes train the policy that one trains: two on one card (gloo), and one a card (NCCL)."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from smpo.engine.loop import fit
from tests.devices.launching import SMPO, TORCHRUN, distance, only_run, ran
from tests.gpu.small import SPEC, trained, training

pytestmark = pytest.mark.gpu
WEIGHTS = 1e-4
"""Of the largest weight: float32 sums in another order, and AdamW, which divides each gradient by its own size."""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_processes_on_one_card(models, tmp_path, device, numbers, precision):
    """Gradients are averaged by gloo, through the host: what two processes do with them is the same as over NCCL."""
    if precision == "fp16" and device.type == "cpu":
        pytest.skip(
            "fp16 is refused on the CPU; tests/devices/test_overflow.py has loss scaling with two processes there"
        )
    sets = [f"train.precision={precision}", "train.steps=3", "train.batch=4"]
    alone = training(models, tmp_path, device, sets)
    losses = [report.metrics["loss"] for report in fit(alone.session)]
    weights = trained(alone)
    said = ran(
        *TORCHRUN, "--standalone", "--nproc-per-node", 2, "-m", "tests.gpu.together", device.type,
        tmp_path / "spec.yaml", tmp_path, json.dumps(sets), folder=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-4000:]
    facts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    both = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    numbers()
    assert facts[0] == facts[1], "losses and counts, to the last bit"
    assert all(torch.equal(both[0][name], both[1][name]) for name in weights)
    assert facts[0]["losses"] == pytest.approx(losses, rel=1e-4)
    largest = max(float(tensor.abs().max()) for tensor in weights.values())
    assert max(float((both[0][name] - tensor).abs().max()) for name, tensor in weights.items()) < WEIGHTS * largest


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_process_a_card(models, tmp_path, device, numbers, sharding):
    cards = torch.cuda.device_count()
    if cards < 2:
        pytest.skip(f"NCCL wants a card for each process: two are needed, and torch finds {cards}")
    runs = []
    for count, how in ((1, "none"), (2, sharding)):
        folder = tmp_path / str(count)
        folder.mkdir()
        text = SPEC.format(models=models, more="", device=device.type, folder=folder)
        (folder / "small.yaml").write_text(text)
        said = ran(
            *SMPO,
            "run",
            "small.yaml",
            "-q",
            "--devices",
            count,
            f"--set=runtime.sharding={how}",
            folder=folder,
        )
        assert said.returncode == 0, said.stderr[-4000:]
        runs.append(only_run(folder))
    numbers()
    assert distance(*runs) < WEIGHTS
