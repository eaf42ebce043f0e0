"""`smpo`, in a process that kills itself with SIGKILL at a moment that is told beforehand.

    python -m tests.kill.driver '{"phase": "checkpointing", "nth": 2, "after": 0.003}' run spec.yaml --resume

`after` seconds from the `nth` beginning of the phase; negative: at its end. Nothing is caught, flushed or closed, as
when the kernel runs out of memory or a person loses patience.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

PHASES = {
    "loading": "smpo.app.build.build:live_runtime",
    "scoring": "smpo.data.cache.scores:commit",
    "caching": "smpo.data.cache.shards:Shards.append",
    "opening the log": "smpo.tracking.jsonl:JsonlTracker.start",
    "training": "smpo.engine.loop:compute_loss",
    "reporting": "smpo.tracking.jsonl:JsonlTracker._write",
    "looking at held-out pairs": "smpo.engine.monitoring.holdout:Holdout.errors",
    "previewing": "smpo.app.evaluate.evaluate:preview",
    "checkpointing": "smpo.engine.checkpoints.checkpoint:write",
    "dropping old checkpoints": "smpo.engine.checkpoints.checkpoint:drop_old",
    "sampling": "smpo.families.plane:PlaneDenoiser.sample",
    "evaluating": "smpo.app.evaluate.evaluate:evaluate_run",
    "writing the evaluation": "smpo.app.evaluate.evaluate:write_evaluation",
    "saving the model": "smpo.app.run.export:export",
    "calling MLflow": "smpo.tracking.mlflow:MlflowRun._call",
    "noting what MLflow has": "smpo.tracking.mirror:write_place",
    "hashing the files": "smpo.app.run.run:write_manifest",
}


def arm(plan: dict[str, Any]) -> None:
    """Wrap the phase's function, so that the process dies in it."""
    begun = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*words: Any, **named: Any) -> Any:
            nonlocal begun
            begun += 1
            due = begun == plan["nth"]
            if due and plan["after"] >= 0:
                threading.Thread(target=_die, args=(plan["after"],), daemon=True).start()
            try:
                return function(*words, **named)
            finally:
                if due and plan["after"] < 0:
                    _die(0)

        return armed

    _wrap(PHASES[plan["phase"]], wrapped)


def _wrap(place: str, how: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, name = find(place)
    setattr(owner, name, how(getattr(owner, name)))


def find(place: str) -> tuple[Any, str]:
    """Where a phase's function is, and what it is called there."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *above, name = path.split(".")
    for one in above:
        owner = getattr(owner, one)
    return owner, name


def _die(after: float) -> None:
    time.sleep(after)
    sys.stderr.write("killed\n")
    os.kill(os.getpid(), signal.SIGKILL)


def slow_down() -> None:
    """Updates take their time, and MLflow hears of them at once: else a tiny run is over before it is told anything."""
    import mlflow  # noqa: F401

    from smpo.tracking.mlflow import mlflow_tracker

    assert mlflow_tracker.__kwdefaults__ is not None
    mlflow_tracker.__kwdefaults__.update(every=0.05, share=1.0)

    def slower(function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*words: Any, **named: Any) -> Any:
            time.sleep(0.03)
            return function(*words, **named)

        return slow

    _wrap("smpo.engine.loop:compute_loss", slower)


def main() -> None:
    plan = json.loads(sys.argv[1])
    sys.argv = ["smpo", *sys.argv[2:]]
    if plan.get("slow"):
        slow_down()
    if plan.get("phase"):
        arm(plan)
    from smpo.cli.main import main as smpo

    smpo()


if __name__ == "__main__":
    main()
