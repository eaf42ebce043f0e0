"""Golden curves: what the tiny worlds' first updates looked like when they were last looked at.

    SMPO_REGENERATE=1 pytest tests/golden      (nox -s curves)

writes them anew; read the diff, and say in the commit why the curves moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smpo.app.build.build import build_run
from smpo.cli.output import resolve_spec
from smpo.engine.loop import fit

FOLDER = Path(__file__).parent
RECORDED = ("loss", "margin", "tau_squared", "grad_norm", "error/winner", "error/loser", "p")

WORLDS = {
    # Shipped specs, fewer updates: everything that a run does up to the optimiser's step, in seconds.
    "plane": ("plane_smpo", ["train.steps=40", "evaluate=null"]),
    "shapes": (
        "quickstart",
        ["train.steps=4", "train.warmup=1", "train.batch=4", "data.limit=24", "evaluate=null"],
    ),
}


def curve(world: str, cache: Path, *changes: str) -> dict[str, Any]:
    """The curve of a world, computed now: what it began from, and for each metric a value an update."""
    name, sets = WORLDS[world]
    here = [f"runtime.cache={json.dumps(str(cache))}", "runtime.threads=1", "runtime.device=cpu"]
    resolved = resolve_spec(name, [*sets, *here, *changes])
    live = build_run(resolved.spec, report=None, progress=lambda *_: None, say=lambda _: None)
    columns: dict[str, list[float]] = {metric: [] for metric in RECORDED}
    for report in fit(live.session):
        for metric in RECORDED:
            columns[metric].append(report.metrics[metric])
    return {
        "spec": resolved.identity.spec_hash,
        "weights": {"model": live.session.denoiser.weights_key, "reward": live.reward_key},
        "data": live.table.digest,
        "curve": columns,
    }


def file(world: str) -> Path:
    return FOLDER / f"{world}.json"
