"""Pages of numbers are what their scripts make of the committed results."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["side_by_side_page", "ladder_page"])
def test_the_page_follows_from_the_results(script: str) -> None:
    command = [sys.executable, str(HERE / "benchmarks" / f"{script}.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, f"run benchmarks/{script}.py"
