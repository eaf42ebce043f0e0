"""One process of a sweep over fake trials: `python fake_worker.py SPEC RUNS TRIALS JOBS [STORAGE]`."""

import json
import sys
from pathlib import Path

from smpo.app.sweep.request import SweepRequest, resolve_sweep
from smpo.app.sweep.worker import sweep
from tests.sweep.words import Quiet, start_fake

spec, runs, trials, jobs, *storage = sys.argv[1:]
wish = SweepRequest(
    Path(spec),
    sets=(f"runtime.runs={runs}", f"runtime.cache={runs}/cache"),
    trials=int(trials),
    jobs=int(jobs),
    storage=storage[0] if storage else None,
    fork=False,
)
screen = Quiet()
ending = sweep(resolve_sweep(wish), screen, starter=start_fake)
print(json.dumps({"why": ending.why, "finished": ending.counts.finished, "said": screen.said}))
