"""`smpo measure rho`, as it is typed."""

import json
from pathlib import Path

import pytest

from tests.cli.words import SMALL_PLANE, smpo


def test_rho_of_the_plane(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL_PLANE)
    ask = (
        "measure",
        "rho",
        spec,
        "--pairs",
        6,
        "--levels",
        3,
        "--set",
        f"runtime.cache={tmp_path / 'cache'}",
    )
    said = smpo(capfd, *ask, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert -0.5 <= found["low"] <= found["rho"] <= found["high"] <= 1.2
    assert found["pairs"] == 6 and found["levels"] == 3
    one, two, *_ = found["choices"]
    assert one["gain"] == 1 and two["passes"] < one["passes"]

    spoken = smpo(capfd, *ask)
    assert spoken.code == 0 and "rho " in spoken.out and "advice" in spoken.out


def test_one_pair_is_too_few(capfd: pytest.CaptureFixture[str]) -> None:
    said = smpo(capfd, "measure", "rho", "experiments/plane_smpo.yaml", "--pairs", 1)
    assert said.code == 2 and "--pairs" in said.err
