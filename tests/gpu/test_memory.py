"""A training of true size takes the memory that `smpo plan` says. The allocator is real on a pretended device, too."""

from __future__ import annotations

import pytest
import torch

from smpo.api import load, plan
from tests.benchmarks.conftest import script  # noqa: F401 -- a fixture

pytestmark = pytest.mark.gpu
CASES = {
    "SD 1.5": ("sd15_smpo", ["train.batch=64", "runtime.window=32"]),
    "SD 1.5, fp32, nothing recomputed": (
        "sd15_smpo",
        [
            "train.batch=16",
            "train.precision=fp32",
            "runtime.gradient_checkpointing=false",
            "runtime.micro_batch=2",
        ],
    ),
    "SDXL, LoRA": (
        "sdxl_smpo",
        [
            "model={use: sdxl, lora: {rank: 16}}",
            "train.batch=32",
            "train.optimiser=adamw",
            "runtime.micro_batch=2",
        ],
    ),
    "SDXL, checkpointing": ("sdxl_smpo", ["train.batch=32"]),
    "SDXL, selective, shadow": (
        "sdxl_smpo",
        ["train.batch=32", "runtime.gradient_checkpointing=selective", "runtime.shadow_weights=true"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_takes_what_the_plan_says(script, device, case):  # noqa: F811
    if device.type == "cpu":
        pytest.skip("the CPU's allocator keeps no peaks; on a pretended GPU the allocator is torch's own")
    spec, sets = CASES[case]
    planned = plan(load(spec, sets)).memory
    there = torch.cuda.mem_get_info(device)[1] / 1e9
    if planned.reserved_gb > there:
        pytest.skip(f"it takes {planned.reserved_gb:.0f} GB, and this device has {there:.0f}")
    found = script("memory").measured(spec, sets)
    assert found["allocated_ratio"] == pytest.approx(1, abs=0.05), found
    assert found["reserved_ratio"] == pytest.approx(1, abs=0.1), found
