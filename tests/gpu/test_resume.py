"""A training that is stopped and goes on in new objects ends bit for bit where one that wasn't stopped ends."""

from __future__ import annotations

import pytest
import torch

from smpo.engine.checkpoints.checkpoint import restore
from smpo.engine.loop import fit
from tests.engine.states import save
from tests.gpu.small import state, trained, training

pytestmark = pytest.mark.gpu
STEPS, STOP = 4, 2
CASES = {
    "fp32": [],
    "bf16 ema": ["train.precision=bf16", "train.ema=0.9"],
    "fp16": ["train.precision=fp16"],
    "adafactor": ["train.precision=bf16", "train.optimiser=adafactor"],
    "shadow": [
        "train.precision=bf16",
        "runtime.shadow_weights=true",
        "runtime.gradient_checkpointing=selective",
    ],
    "LoRA": ["train.precision=bf16"],
}
MATH = "runtime.attention=math"
"""The only attention whose backward pass adds up in one order on every card."""


def stopped(make, folder):
    """Losses and weights of a run that is stopped, and goes on."""
    first, losses = make(), []
    for report in fit(first.session):
        losses.append(report.metrics["loss"])
        if report.step == STOP:
            save(folder, STOP, state(first), spec_hash="x", keep=1)
            break
    second = make()
    start = restore(folder, state(second), spec_hash="x", say=pytest.fail).step
    losses += [report.metrics["loss"] for report in fit(second.session, start)]
    return losses, trained(second)


def unlike(one, other):
    """Names of the tensors that differ in any bit."""
    assert one.keys() == other.keys()
    return [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]


@pytest.mark.parametrize("case", CASES)
def test_stopping_changes_no_bit(models, tmp_path, device, numbers, deterministic, precision_of, case):
    sets = [one.replace("fp16", precision_of("fp16")) if "fp16" in one else one for one in CASES[case]]

    def make():
        return training(models, tmp_path, device, [MATH, *sets], lora=case == "LoRA")

    runs = []
    for _ in range(2):
        straight = make()
        before = trained(straight)
        runs.append(([report.metrics["loss"] for report in fit(straight.session)], trained(straight)))
    (losses, weights), (again, same) = runs
    followed, resumed = stopped(make, tmp_path / "checkpoints")
    numbers()
    assert losses == again and not unlike(weights, same), (
        "two equal runs differ on this device: nothing to hold a resume to"
    )
    assert len(losses) == STEPS and unlike(weights, before), "something was learnt"
    assert followed == losses
    assert not unlike(weights, resumed)
