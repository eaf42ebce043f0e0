"""A pytest plugin that writes each test's outcome as soon as it is known.

    pytest -p half_hour.gpu_tests --results FILE

pytest's own reports are written at the end, which a run with a time limit may not see.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from output import write

ROOT = Path(__file__).parents[2]


class Results:
    """`tests`: name, outcome, seconds and, of a failure, its last line. `collected`: how many there are to run."""

    def __init__(self, file: Path, facts: dict[str, Any]) -> None:
        self.file = file
        self.found: dict[str, Any] = {**facts, "collected": 0, "finished": False, "tests": []}
        self._seconds: dict[str, float] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.found["collected"] = len(session.items)
        self.found["names"] = [item.nodeid for item in session.items]
        write(self.file, self.found)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(report.nodeid, "error", 0.0, report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or (report.when == "setup" and not report.passed) or report.failed:
            outcome = "error" if report.failed and report.when != "call" else report.outcome
            self._add(report.nodeid, outcome, self._seconds[report.nodeid], report.longreprtext)

    def pytest_sessionfinish(self) -> None:
        self.found["finished"] = True
        write(self.file, self.found)

    def _add(self, name: str, outcome: str, seconds: float, said: str) -> None:
        row: dict[str, Any] = {"name": name, "outcome": outcome, "seconds": round(seconds, 2)}
        if outcome in ("failed", "error", "skipped") and said:
            row["message"] = said.replace(f"{ROOT}/", "").strip()[-1500:]
        self.found["tests"].append(row)
        write(self.file, self.found)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="the JSON file that is written after each test")


def pytest_configure(config: pytest.Config) -> None:
    import torch
    from speed.measure import machine

    file = config.getoption("--results")
    if file is None:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = {"machine": machine(device), "began": time.strftime("%Y-%m-%d %H:%M:%S")}
    config.pluginmanager.register(Results(Path(file), facts))
