"""Pages of numbers are what their scripts make of the committed results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["side_by_side_page", "tables", "approximate_page"])
def test_the_page_follows_from_the_results(script: str) -> None:
    command = [sys.executable, str(HERE / "benchmarks" / f"{script}.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, f"run benchmarks/{script}.py"


def test_what_plans_say_of_memory_is_near_what_was_measured() -> None:
    """A quarter is what a person can plan with; whoever changes the sums measures again."""
    told = json.loads((HERE / "benchmarks" / "results" / "memory.json").read_text())
    ratios = [one["ratio"] for shown in told["measured"].values() for one in shown["cases"]]
    assert len(ratios) > 20 and min(ratios) > 0.8 and max(ratios) < 1.25
