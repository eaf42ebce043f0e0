"""What giving up early saves in a sweep, at which final quality: the same space and seeds with and without a pruner.

    python benchmarks/sweep_saving.py            # about half an hour of one core; run it again to go on
    python benchmarks/sweep_saving.py --show     # the table of what is there
    python benchmarks/sweep_saving.py --quick    # seconds, to see that it works: two trials

Each repetition is a sweep of the plane (the space of experiments/sweep.yaml) by each arm: `none`, or a pruner. Arms of
a repetition share the sampler's seed, the data and the random numbers, and each begins with empty caches, so that what
is counted is what a person would pay. Counted are optimiser updates, network passes (a backward as two), and process
CPU time of everything that the sweep started, imports included. Quality is the best trial's objective on seeds and
prompts that no trial has seen, the same for all arms. Differences to `none` are paired by repetition.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from output import add_arguments, target, write

HERE = Path(__file__).parent
SPEC = HERE.parent / "experiments" / "sweep.yaml"
RUNGS = "rungs: {at: [25, 50], prompts: 160, steps: 10}"
ARMS = {
    "none": "rungs: null\n  prune: null",
    "median": f"{RUNGS}\n  prune: {{use: median, startup: 6}}",
    "wilcoxon": f"{RUNGS}\n  prune: {{use: wilcoxon, startup: 32, p: 0.1}}",
    "held-out": "rungs: {at: [25, 50], prompts: 0, by: holdout/accuracy}\n  prune: {use: median, startup: 6}",
}
BLOCK = """\
extends: %s
name: saving-%d
train: %s
evaluate: %s
runtime: {diagnose_every: 100, device: cpu, runs: %s, cache: %s, tracking: none}
sweep:
  maximise: eval/plane-radius/gain
  trials: %d
  search:
    objective.beta:  {log: [50, 5000]}
    train.lr:        {log: [3e-6, 1e-3]}
    inversion.steps: {int: [5, 15], step: 5}
    smoothing:
      choice:
        - hard
        - use: label
          search: {epsilon: {uniform: [0.0, 0.4]}}
        - use: likelihood
          search: {temperature: {log: [0.03, 3]}}
  constraints:
    eval/plane-on-axis/gain: {min: -0.05}
  %s
"""


@dataclass(frozen=True)
class Size:
    """How much is measured; `train` and `evaluate` as a spec has them."""

    trials: int = 24
    fresh: tuple[int, ...] = (2_000_000, 2_000_001, 2_000_002)
    """Seeds that no trial has."""
    arms: tuple[str, ...] = tuple(ARMS)
    train: str = "{holdout: 200}"
    evaluate: str = "{}"
    sets: tuple[str, ...] = ()
    """Of the runs on fresh seeds."""


QUICK = Size(
    2, (2_000_000,), ("none",), "{holdout: 16, steps: 2, batch: 8, warmup: 1}", "{limit: 16, steps: 2}",
    ("train.steps=2", "train.batch=8", "train.warmup=1", "evaluate.limit=16", "evaluate.steps=2"),
)  # fmt: skip


class Silent:
    """Prints nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def one_sweep(arm: str, repetition: int, folder: Path, size: Size) -> dict[str, Any]:
    """One sweep in this process and its children: what it cost, and the settings that it would recommend."""
    from smpo.app.sweep.request import SweepRequest, resolve_sweep
    from smpo.app.sweep.worker import sweep

    file = folder / "sweep.yaml"
    places = (folder / "runs", folder / "cache")
    text = BLOCK % (SPEC, repetition, size.train, size.evaluate, *places, size.trials, ARMS[arm])
    file.write_text(text, encoding="utf-8")
    prepared = resolve_sweep(SweepRequest(file))
    began = time.perf_counter()
    ending = sweep(prepared, Silent())
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    costs = [json.loads(path.read_text()) for path in sorted((folder / "runs").rglob("cost.json"))]
    (best,) = ending.study.best()
    return {
        "arm": arm,
        "repetition": repetition,
        "finished": ending.counts.finished,
        "pruned": ending.counts.pruned,
        "updates": sum(cost["pairs"] for cost in costs) // prepared.resolved.spec.train.batch,
        "training_passes": sum(cost["training_passes"] for cost in costs),
        "other_passes": sum(cost["passes"].get(name, 0.0) for cost in costs for name in ("sample", "diagnose")),
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in used),
        "wall_seconds": time.perf_counter() - began,
        "best": prepared.sweep.space.settings(best.params),
        "chosen_at": best.values[0],
    }


def fresh_scores(found: dict[str, Any], folder: Path, size: Size) -> list[float]:
    """The recommended settings on seeds and prompts that no trial has seen."""
    from smpo.app.plan.plan import make_plan
    from smpo.app.run.run import run
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    scores = []
    for seed in size.fresh:
        settings = {
            **found["best"], "train.seed": seed, "evaluate.seed": seed, "evaluate.prompts": "plane-untouched",
            "train.holdout": 200,
        }  # fmt: skip
        sets = [
            f"runtime.runs={folder / 'fresh'}",
            f"runtime.cache={folder / 'cache'}",
            "runtime.tracking=none",
            "runtime.device=cpu",
            *size.sets,
        ]
        resolved = resolve(SPEC, skeleton=ExperimentSpec, sets=sets, trial=settings)
        result = run(resolved, make_plan(resolved), Silent(), again=True)  # type: ignore[arg-type]
        assert result.evaluation is not None
        scores.append(result.evaluation.metrics()["eval/plane-radius/gain"])
    return scores


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over repetitions (Student's t)."""
    from scipy import stats

    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, -math.inf, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return mean, mean - half, mean + half


def summary(sweeps: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per arm: means, and savings and differences to `none`, paired by repetition."""
    by = {(one["arm"], one["repetition"]): one for one in sweeps}
    found: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        paired = [(one, by["none", r]) for (a, r), one in sorted(by.items()) if a == arm and ("none", r) in by]
        if not paired:
            continue
        quality = [(sum(a["fresh"]) / len(a["fresh"]), sum(b["fresh"]) / len(b["fresh"])) for a, b in paired]
        row: dict[str, Any] = {"repetitions": len(paired), "quality": interval([a for a, _ in quality])}
        row["pruned"] = sum(a["pruned"] for a, _ in paired) / sum(a["finished"] for a, _ in paired)
        for key in ("updates", "cpu_seconds", "passes"):
            cost = [[_cost(one, key) for one in pair] for pair in paired]
            row[key] = sum(a for a, _ in cost) / len(cost)
            row[f"saved_{key}"] = interval([1 - a / b for a, b in cost])
        row["quality_difference"] = interval([a - b for a, b in quality])
        found[arm] = row
    return found


def _cost(one: dict[str, Any], key: str) -> float:
    return float(one["training_passes"] + one["other_passes"] if key == "passes" else one[key])


def show(result: dict[str, Any]) -> None:
    heads = ("updates saved", "passes saved", "CPU time saved")
    print(f"{'arm':10} {'given up':>8}  " + " ".join(f"{head:24}" for head in heads) + " quality, and difference")
    for arm, row in result["summary"].items():
        saved = [row[f"saved_{key}"] for key in ("updates", "passes", "cpu_seconds")]
        cells = " ".join(f"{'{:6.1%} [{:6.1%}, {:6.1%}]'.format(*one):24}" for one in saved)
        quality = "{:.3f} [{:.3f}, {:.3f}]".format(*row["quality"])
        difference = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["quality_difference"])
        print(f"{arm:10} {row['pruned']:8.0%}  {cells} {quality}  {difference}")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("ARM", "REPETITION", "FOLDER"), help=argparse.SUPPRESS)
    add_arguments(parser)
    options = parser.parse_args(words)
    size = QUICK if options.quick else Size()
    if options.one:
        arm, repetition, folder = options.one
        print(json.dumps(one_sweep(arm, int(repetition), Path(folder), size)))
        return
    file = target(options, "sweep_saving.json")
    known = file.exists() and not options.quick
    result: dict[str, Any] = json.loads(file.read_text()) if known else {"sweeps": []}
    if not options.show:
        for repetition in range(1 if options.quick else options.repetitions):
            for arm in size.arms:
                if any((one["arm"], one["repetition"]) == (arm, repetition) for one in result["sweeps"]):
                    continue
                result["sweeps"].append(found := _swept(arm, repetition, size))
                result |= {
                    "trials": size.trials,
                    "fresh_seeds": size.fresh,
                    "machine": f"{platform.machine()}, CPU, 1 thread, one trial at a time",
                    "versions": {name: version(name) for name in ("smpo", "torch", "optuna", "numpy")},
                    "summary": summary(result["sweeps"]),
                }
                write(file, result)
                print(arm, repetition, round(found["cpu_seconds"]), "s CPU", flush=True)
    show(result)


def _swept(arm: str, repetition: int, size: Size) -> dict[str, Any]:
    """A sweep in a process of its own, so that its processor time is its own, and what its choice is worth."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, __file__, "--one", arm, str(repetition), place]
        command += ["--quick"] if size is QUICK else []
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        shutil.rmtree(Path(place) / "runs")
        found["fresh"] = fresh_scores(found, Path(place), size)
    return found


if __name__ == "__main__":
    main()
