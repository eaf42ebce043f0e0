"""What tracking, many runs and long logs cost. Everything is processor time of one run on one machine, so it can be
measured while others work.

    python benchmarks/load.py            # some three minutes; writes benchmarks/results/load.json
    python benchmarks/load.py metrics    # that part alone, into the same file
    python benchmarks/load.py --quick    # less than a minute, to see that it works; no result

`metrics`: 10,000 points to MLflow in sqlite, sent when the mirror would send them, against the updates of the
quickstart and of the plane that yield as many; and what is left to send when training is over. `store`: commands in a
folder with 200 finished runs. `resume`: the log of 100,000 updates, taken back by one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from output import add_arguments, target, write

EVERY = 3.0
"""Seconds between two looks of the mirror at its log, at least (`MirrorTracker.every`)."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    points: int = 10_000
    runs: int = 200
    updates: int = 100_000
    worlds: tuple[str, ...] = ("quickstart", "plane_smpo")
    commands: tuple[str, ...] | None = None
    """Of `store`; None for all."""
    steps: int = 200
    """Updates of the run that `store` copies; twice as many starts are judged."""
    repeats: int = 3


QUICK = Size(points=200, runs=2, updates=200, worlds=("plane_smpo",), commands=("show",), steps=5, repeats=1)


def main(words: list[str] | None = None) -> None:
    measured = {"metrics": metrics, "store": store, "resume": resume}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(measured)}; by default all")
    add_arguments(parser)
    options = parser.parse_args(words)
    if unknown := set(options.parts) - set(measured):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(measured)}")
    file = target(options, "load.json")
    known = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found: dict[str, Any] = known | {
            "made_by": "benchmarks/load.py",
            "machine": f"{platform.machine()}, {_cpu()}, one thread",
            "versions": {name: metadata.version(name) for name in ("smpo", "torch", "mlflow")},
            "unit": "seconds of processor time, unless said otherwise",
        }
        for part in options.parts or measured:
            found[part] = measured[part](place, QUICK if options.quick else Size())
    write(file, found)
    print(json.dumps(found, indent=1))


# ------------------------------------------------------------------------------------------------ metric points


def metrics(place: Path, size: Size) -> dict[str, Any]:
    """The share of an update's time that its metrics take, on their way to the log and to MLflow."""
    found: dict[str, Any] = {"points": size.points, "worlds": {}}
    worlds = {
        "quickstart": ["train.steps=24", "data.limit=200", "evaluate=null"],
        "plane_smpo": ["train.steps=80", "evaluate=null"],
    }
    for name in size.worlds:
        update, reported = _updates(name, worlds[name], place)
        sent, after, waited = _sent(reported, update, place / f"log-{name}", size.points)
        updates = size.points / len(reported)
        found["worlds"][name] = {
            "update": update,
            "values_an_update": len(reported),
            "updates_for_all_points": updates,
            "sent_in_the_background": sent,
            "sent_after_training": after,
            "training_waits": waited,
            "share_in_the_background": sent / (updates * update),
            "share_all_sending": (sent + after) / (updates * update),
            "share_training_waits": waited / (updates * update),
        }
    return found


def _updates(name: str, sets: list[str], place: Path) -> tuple[float, dict[str, float]]:
    """`(median processor time of an update, what it reported)`, with caches filled before."""
    from smpo.app.build.build import build_run
    from smpo.cli.output import resolve_spec
    from smpo.engine.loop import fit

    here = [f"runtime.cache={json.dumps(str(place / 'cache'))}", "runtime.threads=1", "runtime.device=cpu"]
    spec = resolve_spec(name, [*sets, *here]).spec
    live = build_run(spec, report=None, progress=lambda *_: None, say=lambda _: None)
    times, last = [], {}
    began = time.process_time()
    for report in fit(live.session):
        times.append(time.process_time() - began)
        last = {f"train/{key}": value for key, value in report.metrics.items()} | {"train/pairs_per_second": 1.0}
        began = time.process_time()
    return sorted(times[2:])[len(times[2:]) // 2], last


def _sent(reported: dict[str, float], update: float, folder: Path, points: int) -> tuple[float, float, float]:
    """`(mirroring to MLflow while training, what is left of it for the end, writing the log)`, for all points.

    The mirror looks at the log when a run at this pace would have it look; time goes on by `update` a step.
    """
    from smpo.engine.monitoring.tracker import RunInfo
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mirror import Mirror
    from smpo.tracking.mlflow import MlflowRun
    from smpo.tracking.mlflow_thread import rest
    from smpo.tracking.store import find_store

    store = find_store(folder, None)
    assert store is not None
    log, mirror = JsonlTracker(folder), Mirror(folder, MlflowRun(store, folder))
    log.start(RunInfo(name="load", run_id="0-1", folder=folder, spec_hash="0"))
    mirror.advance()  # imports MLflow and creates the database: once a process, whatever is sent

    def look() -> float:
        began = time.process_time()
        mirror.advance()
        return time.process_time() - began

    sent = waited = 0.0
    next_look = EVERY
    updates = round(points / len(reported))
    for step in range(1, updates + 1):
        began = time.process_time()
        log.metrics(reported, step)
        waited += time.process_time() - began
        if step * update >= next_look:
            before = mirror.spent
            sent += look()
            next_look = step * update + rest(mirror.spent - before, EVERY)
    after = look()
    assert mirror.sent >= 0.99 * updates * len(reported)
    return sent, after, waited


# ------------------------------------------------------------------------------------------------ many runs


def store(place: Path, size: Size) -> dict[str, Any]:
    """Commands among 200 finished runs: copies of one, as ten experiments with twenty attempts each."""
    from smpo.cli.main import app  # noqa: F401  (fails early where smpo isn't installed)

    work = place / "many"
    work.mkdir()
    sets = _sets(f"train.steps={size.steps}", f"train.warmup={min(20, size.steps)}", f"evaluate.limit={2 * size.steps}")
    made = [*_smpo(), "run", "plane_smpo", "-q", *sets]
    subprocess.run(made, cwd=work, check=True, capture_output=True)
    (first,) = (work / "runs" / "plane-smpo").glob("*-1")
    for number in range(1, size.runs):
        name = f"experiment-{number % 10}"
        copy = work / "runs" / name / f"{number:012x}-1"
        shutil.copytree(first, copy)
        status = json.loads((copy / "status.json").read_text())
        (copy / "status.json").write_text(json.dumps({**status, "started": status["started"] + number}))
    one, other = f"{7:012x}", f"{8:012x}"
    commands = {
        "show": ["show"],
        "show RUN": ["show", one],
        "diff RUN RUN": ["diff", one, other],
        "diff SPEC RUN": ["diff", "plane_smpo", one],
        "plan": ["plan", "plane_smpo"],
        "verify --files-only": ["verify", one, "--files-only"],
        "doctor RUN": ["doctor", one],
        "show --json": ["show", "--json"],
        "check": ["check", "plane_smpo"],
    }
    wanted = size.commands or tuple(commands)
    times = {name: _cpu_time(commands[name], work, size.repeats) for name in wanted}
    return {"runs": size.runs, "commands": times}


def _cpu_time(words: list[str], cwd: Path, repeats: int) -> float:
    """The least of several: what else the machine does only ever adds."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*_smpo(), *words], cwd=cwd, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


# ------------------------------------------------------------------------------------------------ a long log


def resume(place: Path, size: Size) -> dict[str, Any]:
    """A run of 100,000 updates goes on from its checkpoint, one update back."""
    from smpo.engine.monitoring.tracker import RunInfo
    from smpo.tracking.jsonl import JsonlTracker, read_metrics

    folder = place / "long"
    log = JsonlTracker(folder)
    info = RunInfo(name="long", run_id="0-1", folder=folder, spec_hash="0")
    log.start(info)
    values = {f"train/metric_{number}": 0.123456789 * number for number in range(18)}
    for step in range(1, size.updates + 1):
        log.metrics(values, step)
    log.finish("stopped")
    log_bytes = (folder / "metrics.jsonl").stat().st_size
    began = time.process_time()
    again = JsonlTracker(folder)
    again.start(RunInfo(**{**vars(info), "resumed": True, "step": size.updates - 1}))
    taken = time.process_time() - began
    again.finish("stopped")
    assert len(read_metrics(folder)) == size.updates - 1
    return {"updates": size.updates, "log_bytes": log_bytes, "start_of_the_resumed_log": taken}


def _smpo() -> list[str]:
    return [sys.executable, "-m", "smpo.cli.main"]


def _sets(*sets: str) -> list[str]:
    return [word for one in sets for word in ("--set", one)]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
