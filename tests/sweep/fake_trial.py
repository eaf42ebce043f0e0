"""Does what `smpo.app.sweep.workers.trial` does as far as a sweep can see, in a fraction of a second and without torch.

The trial's `train.lr` says how it goes: above 5e-4 it diverges, and a file `crash` beside the runs makes all crash.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

order = json.loads(Path(sys.argv[1]).read_text())
answer, settings = Path(order["answer"]), order["trial"]
runs = Path(next(one for one in order["sets"] if one.startswith("runtime.runs=")).partition("=")[2])
folder = runs / "small" / f"{order['spec_hash']}-1"
folder.mkdir(parents=True, exist_ok=True)


def say(state: str, message: str = "") -> None:
    fresh = answer.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"state": state, "message": message, "folder": str(folder)}))
    fresh.replace(answer)


def note(word: str) -> None:
    with (runs / "ledger.txt").open("a") as file:
        file.write(f"{word} {answer.stem} {os.getpid()}\n")


say("running")
note("begin")
parent = os.getppid()
for _ in range(int(os.environ.get("FAKE_TENTHS", "3"))):
    time.sleep(0.1)
    if os.getppid() != parent:  # the sweep is gone
        sys.exit(1)
if (runs / "crash").exists():
    say("crashed", "on purpose")
    sys.exit(1)
lr, beta = settings.get("train.lr", 1e-4), settings.get("objective.beta", 500)
if lr > 5e-4:
    note("end")
    say("diverged", "the loss is not finite")
    sys.exit(1)
gain = 1 - (math.log10(lr) + 4.5) ** 2 / 4 - (math.log10(beta) - 2.5) ** 2 / 4
gain += 0.01 * math.sin(1e4 * settings.get("train.seed", 0) + beta)
line = {"step": 4, "time": time.time(), "eval/plane-radius/gain": gain, "seconds/train": 0.1 * beta}
(folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
note("end")
say("done")
