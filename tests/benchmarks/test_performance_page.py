"""docs/performance.md is what its script makes of the committed results."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]


def test_the_page_follows_from_the_results() -> None:
    command = [sys.executable, str(HERE / "benchmarks" / "side_by_side_page.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run benchmarks/side_by_side_page.py"
