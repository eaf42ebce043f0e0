"""Tests for a CUDA device: `pytest -m gpu`, or `nox -s gpu`.

A test collects facts on the device, and then judges them. `SMPO_TEST_DEVICE=cpu` puts the CPU in the GPU's place, so
that the code and the judgements can be seen to work without one; comparisons of the two devices are trivial then. On a
device whose kernels don't run (`tools/pretended_gpu`) facts are collected and numbers aren't judged.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from smpo.families.policy_reference import HALF
from tests.gpu.small import CHANNELS, DEVICE
from tests.pipelines.worlds import make_sd, make_sdxl, make_votes

# Read when cuBLAS starts; deterministic algorithms want it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@functools.cache
def _computes(device: torch.device) -> bool:
    return float(torch.full((3,), 2.0).to(device).square().sum()) == 12.0


@pytest.fixture(scope="session")
def device() -> torch.device:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here; SMPO_TEST_DEVICE=cpu puts the CPU in its place")
    return torch.device(DEVICE)


@pytest.fixture
def numbers(device: torch.device) -> Callable[[], None]:
    """To be called between a test's facts and its judgement."""

    def judged() -> None:
        if not _computes(device):
            pytest.skip("facts were collected; kernels don't run on this device, so there are no numbers to judge")

    return judged


@pytest.fixture
def precision_of(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The word for a precision. On the CPU, where fp16 is refused, `bf16` means fp16 for the length of a test."""

    def word(precision: str) -> str:
        if precision == "fp16" and device.type == "cpu":
            monkeypatch.setitem(HALF, "bf16", torch.float16)
            return "bf16"
        return precision

    return word


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """float32 without TensorFloat-32, in products and convolutions: what 16 bits are held against."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = False
    yield
    matmul.allow_tf32, convolutions.allow_tf32 = before


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Sums in one order, in every run; operators that have no such kernel raise."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(before)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sdxl`, `sd` and `votes.parquet`."""
    folder = tmp_path_factory.mktemp("models")
    make_sdxl(folder / "sdxl", channels=CHANNELS, groups=32, widths=(64, 64))
    make_sd(folder / "sd", channels=CHANNELS, groups=32, width=64)
    make_votes(folder / "votes.parquet")
    return folder
