"""Every name of a library that the code uses exists, also in branches that only a GPU or several processes take."""

from pathlib import Path

import pytest
import torch

from tests.names import faults_of

ROOT = Path(__file__).parents[1]
MISSPELT = ROOT / "tests" / "misspelt.py"
UNSEEN = ("Event(enable_timing=True).elapsed", "torch.zeros(1).detatch")
"""Attributes of results: mypy alone finds these."""
OF_CUDA = ("torch._C._cudnn.", "torch._C._cuda_")
"""Names that torch's CPU build lacks."""


@pytest.mark.parametrize("folder", ["smpo", "benchmarks", "tests", "tools", "examples", "docs"])
def test_libraries_have_every_name_that_is_used(folder):
    own = {"smpo"} if folder == "smpo" else set()  # mypy reads smpo
    files = [file for file in sorted((ROOT / folder).rglob("*.py")) if file != MISSPELT]
    faults = [fault for file in files for fault in faults_of(file, own)]
    if torch.version.cuda is None:
        faults = [fault for fault in faults if not any(name in fault for name in OF_CUDA)]
    assert faults == []


def test_a_misspelt_name_is_found_in_every_branch():
    lines = MISSPELT.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# type: ignore[" in line}
    wrong -= {number for number, line in enumerate(lines, 1) if any(one in line for one in UNSEEN)}
    found = {int(fault.split(":")[1]) for fault in faults_of(MISSPELT)}
    assert len(wrong) > 10 and wrong <= found


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("import torch\ndef f(torch):\n    return torch.cuda.getdevice_name()", 0),
        ("import torch\ndef f():\n    return lambda: torch.cuda.getdevice_name()", 1),
        ("def f():\n    import torch.cuda as gpu\n    return [gpu.getdevice_name() for _ in '12']", 1),
        ("from torch import cuda\nclass A:\n    name: cuda.NoEvent", 1),
        ("import torch.distributed\ntorch.distributed.is_initialised()", 1),
        ("import torch\ntorch.cuda.get_device_name(0)", 0),
        ("import torch\ntorch.cuda.get_device_name(card=0)", 1),
        ("import not_installed\nnot_installed.anything()", 0),
    ],
)  # fmt: skip
def test_names_are_followed_from_their_import(tmp_path, code, faults):
    (tmp_path / "some.py").write_text(code)
    assert len(faults_of(tmp_path / "some.py")) == faults
