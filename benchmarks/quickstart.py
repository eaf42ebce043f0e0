"""The quickstart over several training seeds, and the same without smoothing or inversion, with machine and versions.

    python benchmarks/quickstart.py --seeds 3
    python benchmarks/quickstart.py --quick      # seconds, to see that it works; no result

Runs go through the very functions behind `smpo run`; their folders are kept, so that a benchmark that is stopped goes
on where it was. Ablations of many variants have a command of their own: `smpo run experiments/ablation.yaml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from output import add_arguments, target, write

SPEC = Path(__file__).parents[1] / "experiments" / "quickstart.yaml"
RUNGS = {
    "SmPO": [],
    "DPO + smoothing": ["inversion=none"],
    "DPO": ["objective=dpo", "objective.beta=2000", "smoothing=hard", "inversion=none"],
}


class Quiet:
    """A console that prints nothing but warnings."""

    def phase(self, title: str) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def step(self, report: Any, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None:
        print(f"    warning: {text}", flush=True)


def run_folder(spec: Path, sets: list[str], runs: Path) -> tuple[Path, str]:
    """`(folder, identity)` of this variation; a finished run of the same identity is found instead of repeated."""
    from smpo.app.plan.plan import make_plan
    from smpo.app.run.run import run
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve
    from smpo.runs.store import RunExists

    place = [f"runtime.runs={runs}", f"runtime.cache={runs / 'cache'}", "runtime.tracking=none"]
    resolved = resolve(spec, skeleton=ExperimentSpec, sets=[*sets, *place])
    try:
        return run(resolved, make_plan(resolved), Quiet(), resume=True).folder, resolved.identity.spec_hash
    except RunExists as known:
        return known.folder, resolved.identity.spec_hash


def run_one(spec: Path, sets: list[str], runs: Path) -> dict[str, Any]:
    """What this variation's run found."""
    folder, identity = run_folder(spec, sets, runs)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = {k: v for line in lines for k, v in line.items() if k.startswith("seconds/")}
    tau = max(line["train/tau_squared"] for line in lines if "train/tau_squared" in line)
    judges = {j["name"]: {**j["comparison"], "made_labels": j["made_labels"]} for j in evaluation["judgements"]}
    return {"spec": identity, "judges": judges, "seconds": seconds, "tau_squared_max": tau}


def world() -> str:
    """Names the shapes world's weights and pairs by content: runs on other ones are other runs, whatever their spec."""
    from smpo.worlds.shapes import WEIGHTS

    content = hashlib.sha256()
    for file in sorted(WEIGHTS.rglob("*.safetensors")) + sorted(WEIGHTS.rglob("*.parquet")):
        content.update(file.read_bytes())
    return content.hexdigest()[:12]


def machine() -> dict[str, Any]:
    packages = ("smpo", "torch", "diffusers", "transformers", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        "platform": platform.system() + " " + platform.machine(),
        "packages": {name: metadata.version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }


QUICK = (
    "train.steps=1", "train.warmup=1", "train.batch=4", "train.holdout=8", "data.limit=16", "evaluate.limit=8",
    "evaluate.steps=2", "runtime.preview_every=null",
)  # fmt: skip
"""One update of few pairs, judged on few prompts."""


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    if not options.quick:
        return measure(options, RUNGS)
    options.seeds, options.sets = 1, [*options.sets, *QUICK]
    with tempfile.TemporaryDirectory() as folder:
        options.runs = Path(folder)
        return measure(options, {"SmPO": RUNGS["SmPO"]})


def measure(options: argparse.Namespace, variants: dict[str, list[str]]) -> None:
    """Runs what is missing, and writes the result."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, sets in variants.items():
        found[name] = []
        for seed in range(options.seeds):
            one = run_one(
                SPEC,
                [*sets, f"runtime.device={options.device}", *options.sets, f"train.seed={seed}"],
                options.runs / world(),
            )
            found[name].append({"seed": seed, **one})
            said = "  ".join(
                f"{judge} {c['gain']:+.4f} win {c['win_rate']:.3f} [{c['win_rate_low']:.3f}, {c['win_rate_high']:.3f}]"
                for judge, c in one["judges"].items()
            )
            print(
                f"{name:36s} seed {seed}  {said}  {sum(one['seconds'].values()):.0f} s",
                flush=True,
            )
    body = {
        "spec": SPEC.name,
        "sets": options.sets,
        "world": world(),
        "machine": machine(),
        "variants": found,
    }
    write(target(options, "quickstart.json"), body)


if __name__ == "__main__":
    main()
