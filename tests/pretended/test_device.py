"""The pretended device itself: torch finds it; devices, dtypes, shapes and memory are checked, calls are counted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

pytestmark = [pytest.mark.pretended, pytest.mark.usefixtures("device")]
GB = 10**9


def test_torch_finds_a_data_centre_card():
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.cuda.get_device_name() == "Pretended GPU"
    assert torch.cuda.get_device_capability() == (9, 0)
    free, total = torch.cuda.mem_get_info()
    assert 150 * GB < free <= total


def test_products_are_launched_and_copies_come_back(device):
    device.reset()
    product = torch.ones(4, 8, device="cuda") @ torch.ones(8, 3, device="cuda")
    found = device.counts()
    assert product.shape == (4, 3) and found["cublasSgemm_v2"] == 1 and found["launch"] >= 2
    assert device.waits(found) == 0, "nothing was read"
    numbers = torch.arange(5).to("cuda")
    assert numbers.tolist() == [0, 1, 2, 3, 4], "a copy comes back as it was"
    assert (numbers + 1).tolist() == [0] * 5, "a result reads as zeros"
    assert device.waits(device.counts()) == 3, "one copy up from pageable memory, two down"


def test_copies_from_pinned_memory_are_counted_apart(device):
    device.reset()
    torch.ones(1000).to("cuda")
    torch.ones(1000).pin_memory().to("cuda", non_blocking=True).cpu()
    found = device.counts()
    assert (found["h2d"], found["h2d_bytes"], found["h2d_pageable"]) == (2, 8000, 1)
    assert (found["d2h"], found["d2h_pageable"]) == (1, 1)


def test_tensors_that_a_card_refuses_are_refused():
    host, card = torch.ones(2, 4), torch.ones(2, 4, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        host + card
    layer = torch.nn.Conv2d(4, 8, 3, device="cuda")
    with pytest.raises(RuntimeError, match="expected input"):
        layer(torch.ones(1, 3, 8, 8, device="cuda"))
    with pytest.raises(RuntimeError, match="should be the same"):
        layer(torch.ones(1, 4, 8, 8, device="cuda", dtype=torch.float16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_attention_and_convolutions_have_gradients(dtype):
    query = torch.ones(2, 8, 64, 40, device="cuda", dtype=dtype, requires_grad=True)
    F.scaled_dot_product_attention(query, query, query).float().sum().backward()
    assert query.grad.shape == query.shape
    layer = torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, device="cuda")
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        out = layer(torch.ones(2, 4, 16, 16, device="cuda"))
    assert out.shape == (2, 8, 8, 8) and out.dtype == dtype
    out.float().sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape


def test_memory_runs_out():
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(151 * GB, device="cuda", dtype=torch.uint8)
    before = torch.cuda.memory_allocated()
    held = torch.empty(100 * GB, device="cuda", dtype=torch.uint8)
    assert torch.cuda.memory_allocated() - before >= 100 * GB
    del held
    torch.cuda.empty_cache()


def test_the_environment_chooses_the_card():
    chosen = {
        "PRETENDED_GB": "24",
        "PRETENDED_SM": "80",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    code = """
import torch
assert torch.cuda.mem_get_info()[1] == 24 * 10**9
assert torch.cuda.get_device_capability() == (8, 0)
torch.ones(10**9, device="cuda")
assert torch.cuda.max_memory_reserved() < 4.1e9, "segments grow by 20 MB"
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **chosen},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
