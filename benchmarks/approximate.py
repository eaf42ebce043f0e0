"""What approximate inversions cost in quality, and what they save: each against the exact one, over seeds.

    python benchmarks/approximate.py                      # the plane, ten seeds: ten minutes of one core
    python benchmarks/approximate.py --world shapes       # pictures, three seeds: half an hour of one core
    python benchmarks/approximate.py --modes exact reference  # some of them; modes that were run are kept
    python benchmarks/approximate.py --only 3 4           # these seeds, gathering nothing
    python benchmarks/approximate.py --quick              # seconds, to see that it works; no result

Every mode trains SmPO (experiments/plane_smpo.yaml or quickstart.yaml, inverting by the policy as the paper does) twice
over: for as many updates as the exact mode, and on, until it has spent as many network forwards. At both points its
samples for untouched starts or prompts are judged against those of the exact mode after its updates, paired by seed and
start; intervals are over both. CPU seconds are this process' own, of training alone. `cached` is `reference` from the
second run on: it finds the same bits (held by a test), and is counted as the policy's own six forwards a pair; its runs
are those of `reference`, continued. The page docs/approximate.md is written by benchmarks/approximate_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from output import add_arguments, target, write
from quickstart import machine

from smpo.cli.exit_codes import quiet_libraries

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent / "experiments"
POLICY = 6.0
"""Forwards of the policy for a pair, with a cached inversion: two images, a backward as two."""


@dataclass(frozen=True)
class World:
    """Where it is tried: a spec and its exact inversion. `limit`: starts of the evaluation, None for all."""

    spec: str
    exact: dict[str, Any]
    updates: int
    batch: int
    seeds: int
    limit: int | None
    sets: tuple[str, ...] = ()


WORLDS = {
    "plane": World("plane_smpo.yaml", {"use": "renoise", "steps": 10, "by": "policy"}, 200, 128, 10, 1000),
    "shapes": World(
        "quickstart.yaml",
        {"use": "renoise", "steps": 12, "spacing": "quadratic", "by": "policy"},
        60,
        16,
        3,
        None,
        ("train.schedule=constant",),  # a run that is continued must not have slowed down towards its end
    ),
}


@dataclass(frozen=True)
class Mode:
    """A way to invert. `marks`: points of the run, and what is counted of a pair's forwards there (None: all that were
    made)."""

    about: str
    changes: dict[str, Any]
    marks: tuple[tuple[str, float | None], ...] = (("compute", None),)


MODES = {
    "exact": Mode("ReNoise along the policy, one correction a hop", {}),
    "skip first": Mode("`skip_first: true`", {"skip_first": True}),
    "reuse last": Mode("`reuse_last: true`", {"reuse_last": True}),
    "reference": Mode(
        "`by: reference`, nothing cached", {"by": "reference"}, marks=(("compute", None), ("cached", POLICY))
    ),
}
CACHED = "`by: reference`, cached (`runtime.reuse_inversions`), from the second run on"


def trained(name: str, seed: int, budget: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """One run of a mode: scores after the world's updates, and again where `budget` forwards are spent."""
    from smpo.app.build.build import build_run
    from smpo.app.evaluate.evaluate import evaluate_run
    from smpo.engine.loop import fit
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    mode, world = MODES[name], options.setting
    inversion = ", ".join(f"{k}: {json.dumps(v)}" for k, v in (world.exact | mode.changes).items())
    longest = world.updates
    if budget is not None:
        longest = 1 + int(budget / POLICY / world.batch) if len(mode.marks) > 1 else 2 * world.updates
    resolved = resolve(
        EXPERIMENTS / world.spec,
        skeleton=ExperimentSpec,
        sets=[
            *world.sets, f"inversion={{{inversion}}}", f"train.seed={seed}", f"train.batch={world.batch}",
            f"train.steps={longest}", f"runtime.cache={options.cache}", f"runtime.device={options.device}",
            f"evaluate.limit={json.dumps(world.limit)}",
        ],
    )  # fmt: skip
    live = build_run(resolved.spec, report=None, progress=lambda *_: None, say=print)
    found: dict[str, Any] = {}
    waiting = {} if budget is None else dict(mode.marks)
    spent = seconds = 0.0
    updates = fit(live.session)
    while "updates" not in found or waiting:
        began = time.process_time()
        report = next(updates)
        seconds += time.process_time() - began
        spent += forwards(report)
        if report.step < world.updates:
            continue
        counts = {at: spent if each is None else each * world.batch * report.step for at, each in waiting.items()}
        here = [at for at, count in counts.items() if budget is not None and count >= budget]
        here += ["updates"] * (report.step == world.updates)
        if not here:
            continue
        told = evaluate_run(resolved, live, lambda *_: None).to_dict()
        for at in here:
            found[at] = {
                "updates": report.step,
                "forwards": counts.get(at, spent),
                "cpu_seconds": seconds,
                "groups": [prompt["group"] or prompt["text"] for prompt in told["prompts"]],
                "scores": {one["name"]: one["policy"] for one in told["judgements"]},
                "base": {one["name"]: one["base"] for one in told["judgements"]},
            }
            waiting.pop(at, None)
    if budget is None:
        found["compute"] = found["updates"]
    return found


def forwards(report: Any) -> float:
    """Of one image, a backward as two: inversion, policy, reference."""
    return float(2 * report.pairs * report.timesteps_per_pair * (report.metrics["passes"] + 3 + 1))


def kept(name: str, seed: int, budget: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """A run from the folder of runs, or made now."""
    file = options.runs / options.world / f"{name.replace(' ', '-')}-{seed}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        found = json.dumps(trained(name, seed, budget, options))
        file.write_text(found)
        print(f"{name} seed {seed}", flush=True)
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def summary(runs: dict[str, list[dict[str, Any]]], batch: int) -> dict[str, Any]:
    """Per mode and point: win rate and gain over exact by both judges, and plain facts."""
    found: dict[str, Any] = {name: {"about": MODES[name].about, **points(runs, name, batch)} for name in runs}
    if "reference" in runs:
        after = points(runs, "reference", batch, ("updates", "cached"))
        after["compute"] = after.pop("cached")
        for one in after.values():
            one["forwards_per_pair"], one["cpu_seconds"] = POLICY, None
        found["cached"] = {"about": CACHED, **after}
    return found


def points(
    runs: dict[str, list[dict[str, Any]]], name: str, batch: int, at: tuple[str, ...] = ("updates", "compute")
) -> dict[str, Any]:
    import numpy as np

    from smpo.evaluation.statistics.over_seeds import contrast

    def scores(name: str, point: str, judge: str, whose: str = "scores") -> Any:
        return np.array([np.mean(run[point][whose][judge], axis=1) for run in runs[name]])

    def told(one: Any, other: Any) -> dict[str, Any] | None:
        compared = contrast(one, other, first["groups"])
        return None if compared is None else asdict(compared)

    first = runs["exact"][0]["updates"]
    found: dict[str, Any] = {}
    for point in at:
        here = [run[point] for run in runs[name]]
        row: dict[str, Any] = {
            "updates": float(np.mean([one["updates"] for one in here])),
            "forwards_per_pair": float(np.mean([one["forwards"] / one["updates"] / batch for one in here])),
            "cpu_seconds": float(np.mean([one["cpu_seconds"] for one in here])),
        }
        for judge in first["scores"]:
            mine = scores(name, point, judge)
            row[judge] = {"over_base": told(mine, scores(name, point, judge, "base"))}
            if name != "exact":
                row[judge]["over_exact"] = told(mine, scores("exact", "updates", judge))
        found[point] = row
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES))
    parser.add_argument("--world", choices=list(WORLDS), default="plane")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--only", type=int, nargs="*", help="run these seeds and gather nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/approximate"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    quiet_libraries()
    options.setting = WORLDS[options.world]
    if not options.quick:
        return measure(options)
    few = (*options.setting.sets, "train.warmup=1", "evaluate.steps=2")
    options.setting = replace(options.setting, updates=1, batch=4, seeds=2, limit=4, sets=few)
    options.modes = ["exact", "reuse last"]
    with tempfile.TemporaryDirectory() as folder:
        options.runs, options.cache = Path(folder) / "runs", Path(folder) / "cache"
        return measure(options)


def measure(options: argparse.Namespace) -> None:
    """Runs what is missing, and writes the result."""
    world = options.setting
    seeds = options.seeds or world.seeds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = ["exact", *(name for name in options.modes if name != "exact")]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(seeds) if options.only is None else options.only:
        for name in names:  # interleaved, so that a stop leaves seeds of all modes
            budget = None if name == "exact" else runs["exact"][-1]["updates"]["forwards"]
            runs[name].append(kept(name, seed, budget, options))
    if options.only is not None:
        return
    body = {
        "spec": world.spec, "updates": world.updates, "batch": world.batch, "seeds": seeds,
        "starts": len(runs["exact"][0]["updates"]["groups"]), "machine": machine(),
        "modes": summary(runs, world.batch),
    }  # fmt: skip
    out = target(options, f"approximate_{options.world}.json")
    write(out, body)
    print(f"written: {out.name}; now python benchmarks/approximate_page.py")


if __name__ == "__main__":
    main()
