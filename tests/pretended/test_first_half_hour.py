"""The first half hour on a card goes through on a pretended one, in small, and so do benchmarks that stay on the CPU
unless told otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.benchmarks.conftest import BENCHMARKS, script  # noqa: F401

pretended = pytest.importorskip("pretended", reason="`nox -s pretended_gpu`")
pytestmark = pytest.mark.pretended

PARTS = ["doctor", "gpu", "sdxl", "options", "sd15", "memory"]


@pytest.mark.timeout(1800)
@pytest.mark.slow  # minutes
def test_the_rehearsal_goes_through(tmp_path):
    environment = {
        **os.environ, "REHEARSAL": "1", "DEVICE": "cuda", "OUT": str(tmp_path), "PYTHON": sys.executable,
    }  # fmt: skip
    command = ["bash", str(BENCHMARKS / "first_half_hour.sh")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1700, check=False)
    assert said.returncode == 0, said.stdout[-5000:] + said.stderr[-5000:]
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert list(parts) == PARTS and all(part["ended"] == "well" for part in parts.values())
    for part in PARTS:
        found = json.loads((tmp_path / f"{part}.json").read_text())
        assert found["machine"]["device"] == "Pretended GPU", part
    (case,) = json.loads((tmp_path / "memory.json").read_text())["cases"].values()
    assert 0 < case["allocated_gb"] <= case["reserved_gb"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("approximate", ["--world", "shapes"]),
        ("quickstart", []),
        ("shapes_fronts", []),
        ("shapes_inversion", []),
    ],
)
def test_a_benchmark_of_the_cpu_runs_there_when_told(script, monkeypatch, tmp_path, name, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    pretended.reset()
    script(name).main(["--quick", "--device", "cuda", *words, "--out", str(tmp_path / "found.json")])
    assert pretended.counts()["launch"] > 1000
    assert json.loads((tmp_path / "found.json").read_text())
