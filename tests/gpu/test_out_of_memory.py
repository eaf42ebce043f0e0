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
SETS = [f"train.batch={PAIRS}", "train.steps=2", "train.optimiser=adafactor", "runtime.threads=1"]


def peak(models, folder, device, micro):
    """Bytes that a training with such micro-batches reserves on the device, at most; losses and weights."""
    free(device)
    live = training(models, folder, device, [*SETS, f"runtime.micro_batch={micro}"])
    losses = [report.metrics["loss"] for report in fit(live.session)]
    weights = trained(live)
    most = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
    return most, losses, weights


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
            torch.cuda.set_per_process_memory_fraction(
                size / torch.cuda.get_device_properties(device).total_memory
            )
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


def test_micro_batches_are_halved_until_they_fit(models, tmp_path, device, numbers, limit):
    small, losses, weights = peak(models, tmp_path, device, PAIRS // 4)
    large, *_ = peak(models, tmp_path, device, PAIRS)
    said = []
    free(device)
    limit(small + (large - small) // 4)
    live = training(models, tmp_path, device, [*SETS, f"runtime.micro_batch={PAIRS}"], say=said.append)
    found = [report.metrics["loss"] for report in fit(live.session)]
    after = trained(live)
    assert live.session.room.pairs < PAIRS and live.session.room.short
    assert said and all("ran out of memory" in one and "done again" in one for one in said), said
    numbers()
    # Sums in another order, through three passes of the network; Adafactor divides a gradient by its size.
    assert found == pytest.approx(losses, rel=1e-4)
    largest = max(float(tensor.abs().max()) for tensor in weights.values())
    furthest = max(float((after[name] - tensor).abs().max()) for name, tensor in weights.items())
    assert furthest < 1e-4 * largest
