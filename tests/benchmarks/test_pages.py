"""Pages of numbers are what their scripts make of the committed results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smpo.api import load, plan

HERE = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["side_by_side_page", "tables", "approximate_page"])
def test_the_page_follows_from_the_results(script: str) -> None:
    command = [sys.executable, str(HERE / "benchmarks" / f"{script}.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, f"run benchmarks/{script}.py"


MEMORY = json.loads((HERE / "benchmarks" / "results" / "pretended_memory.json").read_text())


@pytest.mark.parametrize(
    "row",
    [*MEMORY["cases"].values(), *MEMORY["presets"].values()],
    ids=[*MEMORY["cases"], *MEMORY["presets"]],
)
def test_what_plans_say_of_memory_is_near_what_was_taken(row: dict[str, Any]) -> None:
    """And is what they said when it was measured: a change of the sums is measured again."""
    memory = plan(load(str(HERE / "experiments" / f"{row['spec']}.yaml"), row["sets"])).memory
    assert memory is not None and row["fits"]
    assert 0.95 < row["allocated_ratio"] < 1.05 and 0.9 < row["reserved_ratio"] < 1.1
    planned = (memory.allocated_gb, memory.reserved_gb, memory.card_gb)
    assert planned == pytest.approx(
        (row["plan"]["allocated_gb"], row["plan"]["reserved_gb"], row["plan"]["card_gb"]), abs=0.001
    )


def test_loading_holds_less_than_it_did() -> None:
    told = json.loads((HERE / "benchmarks" / "results" / "loading.json").read_text())
    for case, before in told["before"]["cases"].items():
        assert told["now"]["cases"][case]["private_gb"] <= before["private_gb"]
        assert told["cuda"]["cases"][case]["private_gb"] < 0.3 * before["private_gb"]
