"""What plans say of memory is what torch's own allocator does, on networks of the published sizes."""

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smpo.families.lora import Adapter
from smpo.families.offload import blocks_of, resident_bytes
from tests.families.conftest import make_sd
from tests.families.test_loading_memory import LOAD

pretended = pytest.importorskip("pretended", reason="`nox -s pretended_gpu`")
pytestmark = pytest.mark.pretended

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = (
    "SDXL, checkpointing", "SDXL, selective, shadow", "SDXL, AdamW, EMA", "SDXL, everything kept, micro-batch 1",
    "SDXL, LoRA", "SD 1.5", "SD 1.5, fp32", "SD 1.5, offloaded reference",
)  # fmt: skip


@pytest.fixture
def memory(monkeypatch):
    """The benchmark, with the allocator that runs have."""
    from smpo.app.build.allocator import prefer_expandable_segments

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if not torch.cuda.is_initialized():
        prefer_expandable_segments()
    yield importlib.import_module("memory")
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(BENCHMARKS):
            sys.modules.pop(name)


@pytest.fixture
def true_size(memory):
    return importlib.import_module("speed.true_size")


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_near_what_the_allocator_does(memory, name):
    found = memory.measured(*memory.CASES[name])
    assert found["fits"]
    assert 0.95 < found["allocated_ratio"] < 1.05, found
    assert 0.9 < found["reserved_ratio"] < 1.1, found


def test_no_case_is_left_out(memory):
    assert set(CASES) == set(memory.CASES)


@pytest.mark.parametrize("name", ["sdxl_smpo_24gb", "sd15_smpo_48gb"])
def test_a_preset_trains_on_its_card(memory, name):
    assert memory.apart(name)["fits"]


def test_a_card_that_is_too_small_is_noticed(memory, monkeypatch):
    monkeypatch.setitem(memory.PRESETS, "sdxl_smpo_24gb", 16)
    assert not memory.apart("sdxl_smpo_24gb")["fits"]


def test_a_load_to_the_device_leaves_no_copy_on_the_host(tmp_path):
    small, large = make_sd(tmp_path / "small"), make_sd(tmp_path / "large", channels=(256, 512), groups=8)
    words = [sys.executable, "-c", LOAD, str(small), str(large), "bf16", "whole", "cuda"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    file = (large / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert found["private"] < 3 * found["largest"] < 0.3 * file


def test_an_offloaded_reference_comes_through_pinned_memory_without_a_wait(true_size):
    from smpo.api import load
    from smpo.kinds import Conditioning

    spec = load("sd15_smpo", ["runtime.offload_reference=true", "train.precision=bf16"]).spec
    session = true_size.training(spec, torch.device("cuda"))
    denoiser = session.denoiser
    reference = denoiser.networks.reference
    blocks = blocks_of(reference)
    x, t = torch.zeros(2, 4, 64, 64, device="cuda"), torch.zeros(2, device="cuda")
    cond = Conditioning({"text": torch.zeros(2, 77, 768, device="cuda")})
    for _ in range(2):  # the second pass knows the order of the first
        pretended.reset()
        denoiser.predict(x, t, cond, reference=True)
        counts = pretended.counts()
    assert counts["h2d"] == len(blocks) + 1, "each block once, and the first of the next pass"
    assert counts.get("h2d_pageable", 0) == 0 and pretended.waits(counts) == 0
    assert counts["h2d_bytes"] > 0.9 * sum(p.nbytes for p in reference.parameters())
    _, whole = true_size.policy("sd15", torch.device("meta"), torch.bfloat16, None, hold=True)
    here = sum(p.nbytes for p in reference.parameters() if p.device.type == "cuda")
    assert here <= resident_bytes(whole) < 0.25 * sum(p.nbytes for p in whole.parameters())


@pytest.mark.parametrize(("dora", "held_bytes", "peak_bytes"), [(False, 2.2, 3), (True, 4.2, 5)])
def test_an_adapter_s_frozen_weights_go_to_the_device_in_half_precision(tmp_path, dora, held_bytes, peak_bytes):
    """In bf16 two bytes a weight; DoRA measures the weights in float32."""
    from smpo.families.loading import load_unet
    from smpo.kinds import Runtime

    folder = make_sd(tmp_path / "model", channels=(256, 512), groups=8)
    torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda"))  # cuBLAS allocates its workspace once
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    adapter = Adapter(rank=2, dora=dora)
    one = load_unet(folder, runtime=Runtime(device="cuda", precision="bf16"), adapter=adapter)
    peak, held = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    frozen = sum(p.numel() for p in one.network.parameters() if not p.requires_grad)
    assert held_bytes - 0.4 < held / frozen < held_bytes
    assert peak < peak_bytes * frozen, "attention alone is in float32 for a moment"
