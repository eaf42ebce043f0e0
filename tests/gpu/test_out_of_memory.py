"""A micro-batch that doesn't fit is halved, and the update is the same to rounding."""

from __future__ import annotations

import gc

import pytest
import torch

from smpo.engine.loop import fit
from smpo.families.unet import UNetDenoiser
from tests.gpu.small import trained, training

pytestmark = pytest.mark.gpu
PAIRS = 8
SETS = [f"train.batch={PAIRS}", "train.steps=2"]
WAY = 0.05
"""Of the way that training went: AdamW divides a gradient by its size, so numbers below its rounding (1e-4 of the
others at most) take another step, and the root of their share is a hundredth."""


def peak(models, folder, device, micro):
    """Bytes that a training with such micro-batches reserves on the device, at most; losses, and weights before and
    after."""
    free(device)
    live = training(models, folder, device, [*SETS, f"runtime.micro_batch={micro}"])
    before = trained(live)
    losses = [report.metrics["loss"] for report in fit(live.session)]
    weights = trained(live)
    most = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
    return most, losses, before, weights


def distance(one, other):
    return sum(float((one[name] - tensor).double().square().sum()) for name, tensor in other.items()) ** 0.5


def free(device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@pytest.fixture
def limit(device, monkeypatch):
    """Sets how many bytes a process may reserve. The CPU has no such limit: there, passes with gradients of more than
    half of the update's images run out of memory."""

    def to(size):
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(device).total_memory)
            return
        predict = UNetDenoiser.predict

        def short(self, x, *given, reference=False, **named):
            if torch.is_grad_enabled() and not reference and len(x) > PAIRS:
                raise torch.OutOfMemoryError("out of memory, for a test")
            return predict(self, x, *given, reference=reference, **named)

        monkeypatch.setattr(UNetDenoiser, "predict", short)

    yield to
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_micro_batches_are_halved_until_they_fit(models, tmp_path, device, numbers, exact_float32, limit):
    small, losses, before, weights = peak(models, tmp_path, device, PAIRS // 4)
    large, *_ = peak(models, tmp_path, device, PAIRS)
    said = []
    free(device)
    limit(small + (large - small) // 4)
    live = training(models, tmp_path, device, [*SETS, f"runtime.micro_batch={PAIRS}"], say=said.append)
    found = [report.metrics["loss"] for report in fit(live.session)]
    after = trained(live)
    assert live.session.micro_batcher.pairs < PAIRS and live.session.micro_batcher.short
    assert said and all("ran out of memory" in one and "done again" in one for one in said), said
    numbers()
    assert found == pytest.approx(losses, rel=1e-4), "sums in another order, through the passes of an inversion"
    assert distance(after, weights) < WAY * distance(before, weights)
