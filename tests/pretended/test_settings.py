"""Every setting that a training on a GPU may have goes through: one small run each, all in this process."""

from __future__ import annotations

import pytest

from tools.pretended_gpu.matrix import lines

pytestmark = [pytest.mark.pretended, pytest.mark.usefixtures("device")]
MORE_WAITS = {
    "train.optimiser=adafactor": "its state is made in the first update",
    "train.optimiser=adamw-8bit": "bitsandbytes waits after each tensor",
    "runtime.offload_reference": "the reference comes and goes",
    "runtime.reuse_inversions": "latents are read, and written to the cache",
    "train.crop=random": "pictures are encoded at each visit",
}
"""Settings with which an update may wait more often than once."""


@pytest.mark.parametrize("line", lines())
def test_a_run_trains_evaluates_and_saves(matrix, line):
    found = matrix.run(line)
    assert found.passed, "\n".join(found.error)
    assert found.update.launches > 100, "the update reached the device"
    if not any(setting in line for setting in MORE_WAITS):
        assert found.update.waits == 1, "an update waits once, when its numbers are read"


def test_settings_of_the_registry_are_all_there():
    from smpo.registry.component import REGISTRY

    found = set(lines())
    for kind, slot in (
        ("objective", "objective"),
        ("inversion", "inversion"),
        ("optimiser", "train.optimiser"),
    ):
        assert {f"{slot}={name}" for name in REGISTRY.of(kind)} <= found


def test_a_misspelt_call_fails_with_its_line(matrix, monkeypatch):
    import torch

    def misspelt(*_):
        raise AttributeError("module 'torch.cuda' has no attribute 'getdevice_name'")

    monkeypatch.setattr(torch.cuda, "get_device_name", misspelt)
    found = matrix.run("-")
    assert not found.passed
    assert "getdevice_name" in found.error[0] and "/smpo/" in found.error[1]
