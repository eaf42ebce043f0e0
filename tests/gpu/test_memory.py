"""A training of true size takes the memory that `smpo plan` says. The allocator is real on a pretended device, too."""

from __future__ import annotations

import gc
import json
import sys

import pytest
import torch

from tests.benchmarks.conftest import BENCHMARKS
from tests.devices.launching import ran

pytestmark = pytest.mark.gpu
CASES = ["SD 1.5", "SD 1.5, fp32", "SDXL, LoRA", "SDXL, checkpointing", "SDXL, selective, shadow"]
"""Of benchmarks/memory.py, which trains each in a process that has the card for itself."""


def trained(folder, name, device):
    file = folder / f"{device}.json"
    words = ("--only", name, "--device", device, "--out", file)
    said = ran(sys.executable, BENCHMARKS / "memory.py", *words, folder=folder, timeout=500)
    assert said.returncode == 0, said.stderr[-4000:]
    return json.loads(file.read_text())["cases"][name]


@pytest.mark.parametrize("name", CASES)
def test_a_training_takes_what_the_plan_says(tmp_path, device, name):
    if device.type == "cpu":
        pytest.skip("the CPU's allocator keeps no peaks; on a pretended GPU the allocator is torch's own")
    gc.collect()
    torch.cuda.empty_cache()
    needed = trained(tmp_path, name, "cpu")["plan"]["reserved_gb"]  # the plan alone
    free = torch.cuda.mem_get_info(device)[0] / 1e9
    if needed > free:
        pytest.skip(f"it takes {needed:.0f} GB of the card, of which {free:.0f} are free")
    found = trained(tmp_path, name, device.type)
    assert found["fits"], "no micro-batch was halved"
    assert found["allocated_ratio"] == pytest.approx(1, abs=0.05), found
    assert found["reserved_ratio"] == pytest.approx(1, abs=0.1), found
