"""The benchmark's two arms compute the same thing, and what it says of settings is counted right. Nothing is timed."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parents[2]


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE / "benchmarks"))
    yield lambda name: importlib.import_module(f"speed.{name}")
    for name in [name for name in sys.modules if name == "speed" or name.startswith("speed.")]:
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("arch", "grid", "beta"),
    [("tiny", "0.20", 5000.0), ("tiny", "0.22", 50.0), ("sd15", "0.22", 50.0), ("sdxl", "0.20", 50.0)],
)
def test_the_arms_agree(speed, monkeypatch, arch, grid, beta):
    """The gradient too, to a hundred-thousandth, where the loss doesn't multiply the last bits of errors by 25,000."""
    monkeypatch.setitem(speed("archs").BETA, arch, beta)
    world = speed("archs").build(arch, torch.device("cpu"), 2, reduced=arch != "tiny")
    found = speed("parity").parity(world, grid, 2)
    assert set(found) >= {"x_t", "target", "errors", "margin", "loss", "gradient_norm", "gradient_cosine"}
    assert found["gradient_norm"] < (1e-5 if beta == 50 else 5e-4)


def test_an_arm_that_computes_something_else_is_not_timed(speed, monkeypatch):
    world = speed("archs").build("tiny", torch.device("cpu"), 2)
    monkeypatch.setattr(speed("official"), "GAMMA", 9.0)
    with pytest.raises(AssertionError, match="the arms differ"):
        speed("parity").parity(world, "0.22", 2)


def test_in_16_bits_smpo_is_as_near_to_float32_as_the_official_structure(speed):
    world = speed("archs").build("tiny", torch.device("cpu"), 6)
    found = speed("parity").half_parity(world, "0.22", "bf16", 3)
    assert 0.5 < found["x_t"] < 1.2 and found["gradient"] > 0


def test_what_a_backward_keeps_is_counted(speed):
    world = speed("archs").build("tiny", torch.device("cpu"), 2)
    names = ["gradient_checkpointing", "gradient_checkpointing: selective"]
    selective, whole = speed("options").compared(world, "0.22", "fp32", speed("ours").Mode(micro=2), names, 1)
    assert (
        whole["kept_gb"] < 0.4 * selective["kept_gb"] and selective["kept_gb"] < 0.9 * whole["exact_kept_gb"]
    )
    assert whole["tflop"] > whole["exact_tflop"] == selective["tflop"]
