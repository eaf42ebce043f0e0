"""Every benchmark that can run on a GPU goes through on the pretended one, in its quick mode. Numbers aren't compared:
the pretended GPU computes none."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from tests.pretended.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"
WORDS = {"side_by_side": ["--keep-going"]}
"""Options that a script needs where no number is right."""
ELSEWHERE = {"loading", "output"}
"""`loading` measures the host's memory in processes of its own (tests/families/test_loading_memory.py); `output` holds
the option for the others."""
ON_REQUEST = ("approximate",)
"""Scripts whose committed results are a CPU's, and whose runs take a GPU by `--device cuda` (benchmarks/output.py)."""
SCRIPTS = sorted(
    {file.stem for file in BENCHMARKS.glob("*.py") if re.search(r'^\s*\w.*"--device"', file.read_text(), re.M)}
    - ELSEWHERE
)

pytestmark = [pytest.mark.pretended, pytest.mark.usefixtures("device")]


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Runs a script as Python does, `--quick`; returns the result that it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    parity = importlib.import_module("speed.parity")
    monkeypatch.setattr(parity, "_compared", lambda one, two: (1.0, 1.0))  # both gradients read as zeros

    def run(name: str, *words: str):
        result = tmp_path / "result.json"
        command = [name, "--quick", *WORDS.get(name, []), *words, "--out", str(result)]
        monkeypatch.setattr(sys, "argv", command)
        importlib.import_module(name).main()
        return json.loads(result.read_text())

    yield run
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(BENCHMARKS):
            sys.modules.pop(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_with_a_device_runs_there(quick, name):
    assert quick(name, "--device", "cuda")


@pytest.mark.parametrize("name", ON_REQUEST)
def test_a_benchmark_takes_the_device_that_it_is_given(quick, device, name):
    device.reset()
    assert quick(name, "--device", "cuda")
    assert device.counts()["launch"] > 1000
