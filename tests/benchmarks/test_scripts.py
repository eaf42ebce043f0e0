"""Every script of benchmarks/ is imported and runs in small, and a quick run leaves the committed results alone."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import BENCHMARKS

QUICK = {
    "approximate": [],
    "costs": [],
    "end_to_end": [],
    "load": ["resume"],
    "load_data": [],
    "memory": [],
    "plane_fronts": [],
    "quickstart": [],
    "rewards": [],
    "shapes_fronts": [],
    "shapes_inversion": [],
    "side_by_side": ["--mode", "exact", "--options", "--profile"],
}
"""Words besides `--quick`. These take seconds in this process."""
SLOW = {
    "end_to_end": ["--arch", "sd15"],
    "load": ["store", "metrics"],
    "load_data": ["--rankings"],
    "side_by_side": ["--arch", "sdxl"],
    "sweep_saving": [],
}
"""The same for scripts that start processes of their own, and for longer ablations."""
PAGES = {"approximate_page", "reliability_page", "shapes_inversion_page", "side_by_side_page", "tables"}
"""They write pages of the docs from results; `--check` is tested beside this file."""
PARTS = {"output", "plane_divergence", "preparation_page", "rewards_originals"}
"""They are imported by others alone, or run by them."""
ALONE = {"loading", "machines", "operators", "preparation"}
"""They measure child processes, other instruction sets, published sizes or an older commit: their work has tests of its
own, and here `--help` shows that they import and parse."""


def committed():
    files = [*(BENCHMARKS / "results").rglob("*"), *(BENCHMARKS.parent / "docs").rglob("*")]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def run_quick(script, monkeypatch, tmp_path, name, words):
    before = committed()
    monkeypatch.chdir(tmp_path)
    script(name).main(["--quick", *words, "--out", str(tmp_path / "found.json")])
    assert committed() == before
    return json.loads((tmp_path / "found.json").read_text())


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_run_writes_its_result_where_it_is_told(script, monkeypatch, tmp_path, name):
    assert run_quick(script, monkeypatch, tmp_path, name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_longer_quick_runs(script, monkeypatch, tmp_path, name):
    assert run_quick(script, monkeypatch, tmp_path, name, SLOW[name])


def test_no_script_is_left_out():
    """A new script belongs into one of the lists above."""
    scripts = {file.stem for file in Path(BENCHMARKS).glob("*.py")}
    assert scripts == {*QUICK, *SLOW, *PAGES, *PARTS, *ALONE}


@pytest.mark.parametrize("name", sorted(ALONE))
def test_a_script_without_a_quick_run_imports_and_parses(name):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
