"""What preparation takes, before and after it was given threads and only the visited pairs.

    python benchmarks/preparation.py --data emoji_pairs        # some fifteen minutes on two cores
    python benchmarks/preparation.py --data emoji_pairs --repeats 1 --only pictures,precision

`before` is the code of the commit `--before`, checked out beside this one; `after` is this one. Each measurement is a
process of its own with empty caches: libraries are imported and the networks loaded once, then everything is scored and
encoded that the run needs. Before and after take turns, so that what else runs on the machine disturbs both alike;
ratios are of neighbours. `seconds` are of the wall; `cpu` is processor time of all threads, `main` that of the main
thread alone: what preparation takes where another core is free for the threads, whatever else runs on the machine.

Cases: the quickstart and pairs of emoji, whose smoothing needs the scores of the whole table; the emoji with the range
given, so that only visited pairs are scored; JPEGs of 1024 pixels, as of Pick-a-Pic, for the same small networks.
`pictures`: what one such JPEG takes to decode, to lay out and to place. `precision`: how far scores of the shapes
world's reward move in 16 bits, and p with them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HERE = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "preparation.json"
BEFORE = "9fb46f4"
SEED = 0
RANGE = ["smoothing.low=-0.4", "smoothing.high=0.8"]
SCORED = ["reward=shapes-reward", "smoothing=likelihood", "runtime.threads=1"]


def cases(data: Path, jpegs: Path) -> dict[str, list[str]]:
    """A spec and what is set in it."""
    emoji = ["experiments/emoji_smpo.yaml", f"data.path={data}", *SCORED]
    large = ["experiments/emoji_smpo.yaml", f"data.path={jpegs}", *SCORED, *RANGE]
    return {
        "quickstart": ["experiments/quickstart.yaml", "runtime.threads=1"],
        "emoji": emoji,
        "emoji, range given": [*emoji, *RANGE],
        "JPEGs of 1024 pixels": [*large, "train.steps=6"],
    }


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--data", type=Path, required=True, help="folder of pairs in the Pick-a-Pic v2 schema")
    told.add_argument("--before", default=BEFORE)
    told.add_argument("--repeats", type=int, default=5)
    told.add_argument("--only", default="cases,pictures,precision")
    told.add_argument("--out", type=Path, default=RESULT)
    told.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    asked = told.parse_args()
    if asked.one:
        print(json.dumps(prepare(asked.one[0], asked.one[1:])))
        return
    only = asked.only.split(",")
    found: dict[str, Any] = {
        "made_by": "benchmarks/preparation.py",
        "before": asked.before,
        "machine": f"{platform.machine()}, {_cpu()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("smpo", "torch", "pillow", "transformers")},
        "seed": SEED,
    }
    if "pictures" in only:
        found["pictures"] = pictures()
    if "precision" in only:
        found["precision"] = precision()
    found["cases"] = {}
    with tempfile.TemporaryDirectory() as folder:
        data, place = asked.data.resolve(), Path(folder)
        for name, result in compared(data, place, asked.before, asked.repeats if "cases" in only else 0):
            found["cases"][name] = result
            asked.out.write_text(json.dumps(found, indent=1) + "\n")  # an interrupted one keeps what it has
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def compared(data: Path, place: Path, commit: str, repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if not repeats:
        return
    old = place / "before"
    subprocess.run(["git", "worktree", "add", "--detach", str(old), commit], cwd=HERE, check=True)
    try:
        write_jpegs(place / "jpegs", pairs=96)
        for name, words in cases(data, place / "jpegs").items():
            yield name, compare(words, place, old, repeats)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=HERE, check=True)


def compare(words: list[str], place: Path, old: Path, repeats: int) -> dict[str, Any]:
    """Medians of each, and of before / after in each pair of neighbours."""
    runs: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for repeat in range(repeats):
        order = ("before", "after") if repeat % 2 == 0 else ("after", "before")
        for name in order:
            tree = old if name == "before" else HERE
            with tempfile.TemporaryDirectory(dir=place) as cache:
                command = [sys.executable, __file__, "--data", ".", "--one", *words, f"runtime.cache={cache}"]
                said = subprocess.run(
                    command,
                    cwd=tree,
                    env={**os.environ, "PYTHONPATH": str(tree)},
                    check=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            runs[name].append(json.loads(said.stdout.splitlines()[-1]))
            assert Path(str(runs[name][-1].pop("code"))).is_relative_to(tree)
    keys = runs["after"][0].keys()
    found: dict[str, Any] = {
        name: {key: round(statistics.median(run[key] for run in some), 3) for key in keys}
        for name, some in runs.items()
    }
    ratios = {
        key: sorted(a[key] / b[key] for a, b in zip(runs["before"], runs["after"], strict=True))
        for key in ("seconds", "cpu", "main")
    }
    found["ratio"] = {
        key: {
            "median": round(statistics.median(some), 3),
            "least": round(some[0], 3),
            "most": round(some[-1], 3),
        }
        for key, some in ratios.items()
    }
    return found


NAMES = (
    ("smpo.app.build.build:build_run", "smpo.app.assemble:assemble"),
    ("smpo.app.build.device:live_runtime", "smpo.app.hardware:live_runtime"),
    ("smpo.app.run.cost:CostMeter", "smpo.app.ledger:Ledger"),
    ("smpo.data.cache.scores:ScoreTable", "smpo.data.scores:ScoreTable"),
)
"""Here, and in the code of `BEFORE`."""


def _found(*names: str) -> Any:
    """The first of these attributes that the code on the path has."""
    for name in names:
        module, _, attribute = name.partition(":")
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(module), attribute)
    raise ImportError(f"none of {', '.join(names)} is here")


def prepare(spec: str, sets: list[str]) -> dict[str, Any]:
    """In a process of its own: everything that a run scores and encodes, imports and networks not counted."""
    import smpo
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    build_run, live_runtime, CostMeter, ScoreTable = (_found(*names) for names in NAMES)
    resolved = resolve(Path(spec), skeleton=ExperimentSpec, sets=[*sets, "runtime.device=cpu"]).spec
    runtime = live_runtime(resolved)
    assert resolved.reward is not None
    scorer, _ = resolved.reward.load(runtime), resolved.model.load(runtime)
    table = resolved.data.load(runtime)
    clock = CostMeter()
    began, cpu, main_thread = time.perf_counter(), time.process_time(), time.thread_time()
    build_run(resolved, report=None, progress=lambda *_: None, say=lambda _: None, clock=clock)
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    main_thread = time.thread_time() - main_thread
    store = ScoreTable(runtime.cache / "scores.db")
    return {
        "code": str(Path(smpo.__file__).parent),
        "seconds": spent,
        "cpu": cpu,
        "main": main_thread,
        "score": clock.seconds.get("score", 0.0),
        "encode": clock.seconds.get("encode", 0.0),
        "scores": ScoreTable.wanted(table) - store.missing(table, scorer.key),
        "scores_of_the_table": ScoreTable.wanted(table),
    }


def pictures() -> dict[str, float]:
    """Milliseconds of one core for a JPEG of 1024 pixels."""
    from smpo.imaging import decode, place
    from smpo.kinds import Placement
    from smpo.rewards.networks.clip_preprocessing import ClipPreprocessing

    bytes_ = [jpeg(number) for number in range(16)]
    decoded = [decode(data) for data in bytes_]
    layout = ClipPreprocessing()
    steps: dict[str, Callable[[], Any]] = {
        "decode_ms": lambda: [decode(data) for data in bytes_],
        "preprocess_ms": lambda: [layout(one) for one in decoded],
        "place_ms": lambda: [place(one, 512, Placement()) for one in decoded],
    }
    return {name: round(_cpu_ms(step) / len(bytes_), 1) for name, step in steps.items()}


def precision() -> dict[str, Any]:
    """Of the shapes world's reward over its pairs: how far scores and p move, and how many pairs change sides."""
    import torch

    from smpo.experiment import ExperimentSpec
    from smpo.kinds import Runtime
    from smpo.maths.smoothing import min_max, softmax_preference
    from smpo.registry.resolve import resolve

    spec = resolve(HERE / "experiments" / "quickstart.yaml", skeleton=ExperimentSpec, sets=[]).spec
    assert spec.reward is not None
    with tempfile.TemporaryDirectory() as cache:
        table = spec.data.load(Runtime(cache=Path(cache)))
        pairs = [table[row] for row in range(len(table))]
        shown = [table.picture(name) for pair in pairs for name in (pair.winner, pair.loser)]
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        scores = {
            name: spec.reward.model_copy(update={"precision": name}).load(Runtime())(shown, prompts).double()
            for name in ("fp32", "fp16", "bf16")
        }
    base = scores.pop("fp32")
    low, high = float(base.min()), float(base.max())

    def likelihood(values: torch.Tensor) -> torch.Tensor:
        return softmax_preference(*(min_max(values[side::2], low, high) for side in (0, 1)))

    p = likelihood(base)
    return {
        "pairs": len(pairs),
        "range": [round(low, 4), round(high, 4)],
        **{
            name: {
                "score_largest": float((values - base).abs().max()),
                "score_rms": float((values - base).square().mean().sqrt()),
                "p_largest": float((likelihood(values) - p).abs().max()),
                "p_rms": float((likelihood(values) - p).square().mean().sqrt()),
                "sides_changed": int(((likelihood(values) > 0.5) != (p > 0.5)).sum()),
            }
            for name, values in scores.items()
        },
    }


def jpeg(number: int) -> bytes:
    """A picture of 1024 pixels with as much detail as a photograph, different for each number."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng([SEED, number]).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((1024, 1024), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_jpegs(folder: Path, *, pairs: int) -> None:
    """A parquet file in the Pick-a-Pic v2 schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for number in range(pairs):
        first, second = jpeg(2 * number), jpeg(2 * number + 1)
        rows.append(
            {
                "caption": f"a picture of number {number}", "jpg_0": first, "jpg_1": second, "label_0": 1.0,
                "label_1": 0.0, "has_label": True, "best_image_uid": f"{number}-0", "image_0_uid": f"{number}-0",
                "image_1_uid": f"{number}-1",
            }
        )  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet", row_group_size=16)


def _cpu_ms(work: Callable[[], Any], repeats: int = 5) -> float:
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(1e3 * (time.process_time() - began))
    return min(found)  # other programs only add to it


def _cpu() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
