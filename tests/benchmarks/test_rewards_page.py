"""docs/rewards.md's table is what its script makes of the committed results, and the results are about rounding."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]


def test_the_table_follows_from_the_results() -> None:
    command = [sys.executable, str(HERE / "benchmarks" / "rewards.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run benchmarks/rewards.py --page"


def test_no_difference_is_more_than_rounding() -> None:
    found = json.loads((HERE / "benchmarks/results/rewards.json").read_text())["comparisons"]
    assert len(found) == 8
    for one in found:
        assert one["largest"] < 2e-5 * one["spread"], one["name"]
