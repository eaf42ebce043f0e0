"""docs/reliability.md is what its script makes of the committed results, and those are what tests counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import Count

HERE = Path(__file__).parents[2]


def test_the_page_follows_from_the_results():
    command = [sys.executable, str(HERE / "benchmarks" / "reliability_page.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run benchmarks/reliability_page.py"


def test_tests_of_one_name_add_up_and_other_groups_are_kept(tmp_path):
    file = tmp_path / "found.json"
    first, second = Count(), Count()
    kill = pytest.mark.fault("kill", "SIGKILL", "resumes", times=30).mark
    first.add(kill, {}, passed=True, seconds=2.0)
    first.add(kill, {"injected": 10, "survived": 9}, passed=True, seconds=1.0)
    first.write(file)
    second.add(pytest.mark.fault("faults", "NaN", "stops").mark, {}, passed=False, seconds=0.5)
    second.write(file)
    kept, new = json.loads(file.read_text())["faults"]
    assert (kept["injected"], kept["survived"], kept["lost"], kept["seconds"]) == (40, 39, 1, 3.0)
    assert (new["name"], new["injected"], new["survived"], new["lost"]) == ("NaN", 1, 0, 1)
