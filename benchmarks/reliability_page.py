"""Write docs/reliability.md from what `nox -s faults` found.

python benchmarks/reliability_page.py            # write
python benchmarks/reliability_page.py --check    # 1 when the page isn't that of the results
"""

# ruff: noqa: E501 (prose of a page)

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "results" / "reliability.json"
PAGE = HERE.parent / "docs" / "reliability.md"
TITLES = {
    "kill": "Interruption",
    "devices": "Many devices",
    "faults": "Everything else that breaks",
}

INTRO = """<!-- Written by benchmarks/reliability_page.py; don't edit. -->
# Reliability

Runs, sweeps and ablations survive the faults below: finished work is kept, and an interrupted run ends where an uninterrupted one does. Each line
is a test that injects the fault, for real or as the error that the system would raise; *survived* means that the run went
on, or ended with an error and a state from which it resumes to the demanded result. `nox -s faults` repeats them.
"""


def page(found: dict[str, Any]) -> str:
    parts = [INTRO]
    for group, title in TITLES.items():
        lines = [line for line in found["faults"] if line["group"] == group]
        if lines:
            parts += [f"## {title}\n", table(lines)]
    total = {key: sum(line[key] for line in found["faults"]) for key in ("injected", "survived", "lost")}
    parts.append(
        f"In all {total['injected']} injections, {total['survived']} survived, {total['lost']} lost. Machine: "
        f"{found['machine']}; torch {found['versions']['torch']}, MLflow {found['versions']['mlflow']}.\n"
    )
    return "\n".join(parts)


def table(lines: list[dict[str, Any]]) -> str:
    rows = [f"| {line['name']} | {line['survived']} of {line['injected']} | {line['what']} |\n" for line in lines]
    return "| fault | survived | result |\n|---|--:|---|\n" + "".join(rows)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--check", action="store_true")
    check = words.parse_args().check
    text = page(json.loads(RESULT.read_text(encoding="utf-8")))
    if check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
