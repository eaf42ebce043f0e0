"""Compiled blocks are for inversions: the passes that are compared stay equal to the last bit."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from smpo.engine.loop import fit
from tests.gpu.small import training

pytestmark = pytest.mark.gpu
ROUNDING = {"fp32": 2.0**-11, "bf16": 2.0**-9, "fp16": 2.0**-11}
"""Unit roundoffs; of TensorFloat-32 for float32, as compiled and plain convolutions needn't use it alike."""
GROWTH = 64
"""Some ten passes of a network of some thirty operators in a row; errors add up like a random walk."""


@pytest.fixture(scope="module", autouse=True)
def _compiler(device):
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        pytest.skip("torch.compile needs triton on a GPU, and it isn't installed")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is none")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_compiled_inversions_begin_at_ln_2_and_find_the_same_noise(
    models, tmp_path, device, numbers, precision_of, precision
):
    word, found = precision_of(precision), []
    for compiled in ("false", "true"):
        sets = [f"train.precision={word}", "train.steps=1", f"runtime.compile={compiled}"]
        live = training(models, tmp_path, device, sets)
        found.append(next(fit(live.session)).metrics)
    plain, fast = found
    numbers()
    assert fast["loss"] == plain["loss"], "exactly that of equal networks"
    assert fast["margin"] == plain["margin"] == 0.0
    assert fast["passes"] == plain["passes"] > 0
    assert fast["tau_squared"] == pytest.approx(plain["tau_squared"], rel=GROWTH * ROUNDING[precision])
    assert fast["error/winner"] != plain["error/winner"], "compiled blocks round in another way: they were used"
    assert fast["error/winner"] == pytest.approx(plain["error/winner"], rel=GROWTH * ROUNDING[precision])
