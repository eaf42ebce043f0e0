"""What a run leaves, without its clock readings: so that two of them can be compared to the last bit."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from safetensors import safe_open

CLOCKS = ("train/pairs_per_second", "seconds/", "cost/peak_gib", "cost/energy", "cost/passes_sample")
"""Metrics that measure time, memory or what caches saved (pictures of the base that a killed evaluation had drawn
aren't drawn again). They differ from run to run; how often they were reported doesn't."""


def left_by(folder: Path) -> dict[str, Any]:
    """Of a run folder: weights, checkpoints, evaluation, pictures, and the log."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    return {
        "status": json.loads((folder / "status.json").read_text())["state"],
        "model": (folder / "model/model.safetensors").read_bytes(),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "tensors": {file.name: _content(file) for file in sorted(newest.glob("*.safetensors"))},
        "plain": {name: (newest / name).read_text() for name in ("optimiser.json",)},
        "judgements": evaluation["judgements"],
        "drift": evaluation.get("drift"),
        "pictures": {
            file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("samples/**/*.png")
        },
        "log": [_without_clocks(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "litter": sorted(
            path.name
            for path in folder.rglob("*")
            if any(mark in path.name for mark in (".tmp", ".part", ".writing-", ".replaced-"))
        ),
    }


def mirrored(database: Path) -> dict[str, Any]:
    """Of MLflow's store: every experiment's runs, each with its curves in the order in which they are drawn."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as store:
        runs = store.execute(
            "SELECT e.name, r.run_uuid, r.status FROM runs r JOIN experiments e USING (experiment_id) ORDER BY 1, 2"
        ).fetchall()
        return {
            "runs": [(name, status) for name, _, status in runs],
            "curves": [_curves(store, uid) for _, uid, _ in runs],
            "params": [
                sorted(store.execute("SELECT key, value FROM params WHERE run_uuid = ?", (uid,)).fetchall())
                for _, uid, _ in runs
            ],
        }


def _curves(store: sqlite3.Connection, uid: str) -> dict[str, list[tuple[int, Any]]]:
    """By metric: step and value, in the order of their times, which is that of a plot over time."""
    rows = store.execute(
        "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, timestamp, step", (uid,)
    ).fetchall()
    curves: dict[str, list[tuple[int, Any]]] = {}
    for key, step, value in rows:
        curves.setdefault(key, []).append((step, None if key.startswith(CLOCKS) else value))
    return curves


def _without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {key: None if key.startswith(CLOCKS) else value for key, value in line.items() if key != "time"}


def _content(file: Path) -> dict[str, bytes]:
    with safe_open(file, "np") as tensors:
        return {name: tensors.get_tensor(name).tobytes() for name in tensors.keys()}  # noqa: SIM118
