"""Where a benchmark writes: the committed results, another file, or, when it was quick, a folder beside the runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["QUICK", "RESULTS", "add_arguments", "target", "write"]

RESULTS = Path(__file__).parent / "results"
QUICK = Path("runs/benchmarks/quick")


def add_arguments(parser: argparse.ArgumentParser, *, device: bool = False) -> None:
    """`--quick` and `--out`; `device`: `--device` too, for scripts whose committed results are a CPU's."""
    if device:
        parser.add_argument("--device", default="cpu", help="where the runs train; the committed results are a CPU's")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="seconds instead of minutes: shows that the script works, measures nothing",
    )
    parser.add_argument("--out", type=Path, help="the file to write, instead of the committed result")


def target(options: argparse.Namespace, name: str) -> Path:
    """`--out`, else `NAME` among the committed results, which a quick run leaves alone."""
    if options.out is not None:
        return Path(options.out)
    return (QUICK if options.quick else RESULTS) / name


def write(file: Path, body: Any) -> None:
    """As JSON, whole or not at all: a process that is killed leaves the file of before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
