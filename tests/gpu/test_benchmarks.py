"""Scripts of benchmarks/ run in small on the device, as a person starts them, and write finite numbers."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from tests.benchmarks.conftest import BENCHMARKS
from tests.devices.launching import ran
from tests.gpu.small import DEVICE

pytestmark = pytest.mark.gpu
SCRIPTS = {
    "side_by_side, tiny": ("side_by_side", ["--mode", "exact", "--options", "--profile"]),
    "side_by_side, SDXL in 16 bits": (
        "side_by_side",
        [*(["--arch", "sdxl"] if DEVICE == "cuda" else []), "--mode", "exact", "--precision", "bf16"],
    ),
    "end_to_end": ("end_to_end", []),
    "approximate": ("approximate", []),
    "memory": ("memory", []),
}
JUDGING = {"side_by_side", "approximate"}
"""They stop where numbers are absurd, as they are where kernels don't run."""


def numbers_in(found, path=""):
    """All numbers of a result, by where they stand."""
    if isinstance(found, dict | list):
        for name, one in found.items() if isinstance(found, dict) else enumerate(found):
            yield from numbers_in(one, f"{path}/{name}")
    elif isinstance(found, float):
        yield path, found


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_quick_run_writes_finite_numbers(tmp_path, device, numbers, case):
    name, words = SCRIPTS[case]
    where = ["--device", device.type, "--quick", "--out", tmp_path / "found.json"]
    said = ran(sys.executable, BENCHMARKS / f"{name}.py", *words, *where, folder=tmp_path, timeout=400)
    misspelt = ("AttributeError", "NameError", "TypeError", "ImportError", "ModuleNotFoundError")
    assert not any(one in said.stderr for one in misspelt), said.stderr[-4000:]
    if name in JUDGING and said.returncode:
        numbers()
    assert said.returncode == 0, said.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    numbers()
    assert [path for path, one in numbers_in(found) if not math.isfinite(one)] == []
    if device.type == "cuda":
        assert torch.cuda.get_device_name(device) in json.dumps(found["machine"])
