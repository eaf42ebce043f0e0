"""Counting what tests injected: a plugin that makes benchmarks/results/reliability.json of tests with a `fault` marker.

    @pytest.mark.fault("kill", "SIGKILL while training", "what smpo does about it", times=30)
    def test_...

A test that passes survived as often as its fault was injected; one that fails lost all of them, unless it says better:

    def test_...(record_property):
        record_property("injected", 30)
        record_property("survived", 29)

`pytest -m fault --reliability=FILE` writes; groups of which no test ran are kept as they are in the file. Tests that
share a name are one line of the table.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

GROUPS = ("kill", "devices", "faults")
"""Interruption and resuming; several processes; everything else."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="write what `fault` tests injected and survived")


class Count:
    """Lines of the table, by group and name."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, marker: pytest.Mark, said: dict[str, Any], *, passed: bool, seconds: float) -> None:
        """Tests of one name add up."""
        group, name, what = marker.args
        assert group in GROUPS, f"{group} is none of {GROUPS}"
        injected = int(said.get("injected", marker.kwargs.get("times", 1)))
        survived = int(said.get("survived", injected)) if passed else 0
        line = self.lines.setdefault(
            (group, name),
            {
                "name": name,
                "group": group,
                "injected": 0,
                "survived": 0,
                "lost": 0,
                "seconds": 0.0,
                "what": what,
            },
        )
        line["injected"] += injected
        line["survived"] += survived
        line["lost"] += injected - survived
        line["seconds"] = round(line["seconds"] + seconds, 2)

    def write(self, path: Path) -> None:
        """Groups that were run replace those in the file."""
        found = list(self.lines.values())
        if not found:
            return
        known = json.loads(path.read_text(encoding="utf-8"))["faults"] if path.exists() else []
        ran = {line["group"] for line in found}
        lines = [line for line in known if line["group"] not in ran] + found
        text = json.dumps(
            {
                "made_by": "nox -s faults",
                "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
                "versions": {name: metadata.version(name) for name in ("smpo", "torch", "mlflow")},
                "faults": sorted(lines, key=lambda line: GROUPS.index(line["group"])),
            },
            indent=1,
            ensure_ascii=False,
        )
        path.write_text(text + "\n", encoding="utf-8")


COUNT = Count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    marker = item.get_closest_marker("fault")
    decisive = report.when == "call" or (report.when == "setup" and not report.passed)
    if marker is not None and decisive:
        COUNT.add(marker, dict(item.user_properties), passed=report.passed, seconds=report.duration)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--reliability")
    if target:
        COUNT.write(Path(target))
