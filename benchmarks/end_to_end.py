"""What surrounds training, measured as well: scoring, encoding, loading, and the evaluation's sampling and judging.

    python benchmarks/end_to_end.py                             # the quickstart's spec, one CPU thread: two minutes
    python benchmarks/end_to_end.py --arch sdxl --reduced       # SDXL's spec, true blocks at an eighth of the width
    python benchmarks/end_to_end.py --arch sdxl --device cuda --set train.precision=bf16 --set runtime.compile=true

Everything that a run does is done here once on a share of its work, with empty caches, and timed: on a CPU in this
process' own time, on a GPU by the wall. From the rates follows what each would take of the whole run, and what encoding
once is worth over visits of a pair. Sampling is measured picture by picture too, to say what batching is worth.
`--arch`: weights are random ones of the true architecture, pictures are JPEGs, the spec is the shipped one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from output import add_arguments, target, write

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
VISITS = (1, 2, 5, 50)


def measured(spec_file: Path, sets: list[str], place: Path, updates: int, prompts: int, device: str) -> dict[str, Any]:
    import torch
    from speed.measure import Phases, machine

    from smpo.app.build.build import build_run
    from smpo.engine.loop import fit
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    clock = Phases(torch.device(device))
    whole = resolve(spec_file, skeleton=ExperimentSpec, sets=sets).spec
    here = [f"runtime.cache={place / 'cache'}", f"train.steps={updates}", "train.warmup=0", "runtime.threads=1",
            f"runtime.device={device}"]  # fmt: skip
    spec = resolve(spec_file, skeleton=ExperimentSpec, sets=[*sets, *here]).spec
    assert spec.evaluate is not None
    with clock("load"):
        live = build_run(spec, report=None, progress=lambda *_: None, say=print, clock=clock)
    written = sum(file.stat().st_size for file in (place / "cache").rglob("*") if file.is_file())
    session, table = live.session, live.table
    pairs = updates * spec.train.batch
    with clock("data"):
        for step in range(updates):
            for _ in session.batches(step):
                pass
    with clock("train"):
        for _ in fit(session):
            pass
    several = whole.evaluate.prompts.load()[:prompts]
    texts, seeds = [one.text for one in several], list(range(len(several)))
    how: dict[str, Any] = {"guidance": spec.evaluate.guidance, "steps": spec.evaluate.steps}
    if spec.runtime.compile:
        session.denoiser.sample(texts, seeds, **how)
    with clock("sample"):
        pictures = session.denoiser.sample(texts, seeds, **how)
    few = min(len(texts), max(2, len(texts) // 8))
    with clock("sample one by one"):
        for text, seed in zip(texts[:few], seeds, strict=False):
            session.denoiser.sample([text], [seed], **how)
    judges = [reward.load(live.runtime) for reward in spec.evaluate.rewards]
    with clock("judge"):
        for judge in judges:
            judge(pictures, texts)

    trained = whole.train.steps * whole.train.batch
    drawn = 2 * len(whole.evaluate.prompts.load()) * whole.evaluate.images
    seen = len({row for step in range(updates) for batch in session.batches(step) for row in batch.ids})
    counts = {
        "score": (2 * len(table), "pictures", 2 * len(table)),
        "encode": (2 * seen, "pictures", 2 * min(len(table), trained)),
        "data": (pairs, "pairs", trained),
        "train": (pairs, "pairs", trained),
        "sample": (len(texts), "pictures", drawn),
        "judge": (len(texts), "pictures", drawn),
    }
    rows: dict[str, Any] = {}
    for phase, (count, what, run) in counts.items():
        each = clock.seconds.get(phase, 0.0) / count
        rows[phase] = {
            "what": what, "measured": count, "seconds": each * count, "per_second": 1 / each if each else None,
            "in_a_run": run, "run_seconds": each * run,
        }  # fmt: skip
    total = sum(row["run_seconds"] for row in rows.values())
    for row in rows.values():
        row["share"] = row["run_seconds"] / total
    encode, train = 2 / rows["encode"]["per_second"], 1 / rows["train"]["per_second"]
    return {
        "spec": spec_file.name,
        "phases": rows,
        "load_seconds": clock.seconds["load"],
        "cache_bytes_per_picture": written / (2 * seen),
        "encoding_once": {str(n): (train + encode) / (train + encode / n) for n in VISITS},
        "sampling_batch": min(spec.runtime.encode_batch, len(texts)),
        "batched_sampling_gain": clock.seconds["sample one by one"] / few * rows["sample"]["per_second"],
        "compiled": spec.runtime.compile,
        "precision": spec.train.precision,
        "seed": spec.train.seed,
        "unit": "processor time" if device == "cpu" else "wall time",
        "machine": machine(torch.device(device)),
    }


def main(words: list[str] | None = None) -> None:
    chosen = arguments(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from smpo.cli.exit_codes import quiet_libraries

    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        place, sets, spec = Path(folder), list(chosen.set), EXPERIMENTS / "quickstart.yaml"
        if chosen.arch is not None:
            import torch
            from speed.folder import make_experiment

            spec = EXPERIMENTS / f"{chosen.arch}_smpo.yaml"
            made = make_experiment(
                chosen.arch,
                place,
                device=torch.device(chosen.device),
                pairs=chosen.pairs,
                reduced=chosen.reduced,
            )
            batch = [f"train.batch={chosen.pairs}"]
            small = ["train.precision=fp32", "evaluate.steps=4"] if chosen.reduced else []
            sets = [*made, *batch, *small, *sets]
        body = measured(spec, sets, place, chosen.updates, chosen.prompts, chosen.device)
    body |= {"reduced": chosen.reduced}
    for phase, row in body["phases"].items():
        rate = "nothing to do" if row["per_second"] is None else f"{row['per_second']:8.2f} {row['what']} a second"
        print(f"{phase:10s} {rate}, {row['share']:6.1%} of a run")
    print(f"batched sampling: {body['batched_sampling_gain']:.2f} times one by one")
    suffix = "_reduced" if chosen.reduced else ""
    write(target(chosen, f"end_to_end_{chosen.arch or 'quickstart'}{suffix}_{chosen.device}.json"), body)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=["sd15", "sdxl"], help="instead of the quickstart")
    parser.add_argument("--reduced", action="store_true", help="an eighth of the width: shows that it works")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--pairs", type=int, default=256, help="with --arch: pairs in the file and in an update")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a setting of the spec")
    add_arguments(parser)
    chosen = parser.parse_args(words)
    if chosen.quick:
        chosen.reduced, chosen.updates, chosen.prompts, chosen.pairs = chosen.arch is not None, 1, 2, 4
        few = ["train.batch=4", "evaluate.steps=2", "runtime.micro_batch=2", "inversion.steps=2"]
        chosen.set += few if chosen.arch else [*few, "data.limit=8", "evaluate.limit=8"]
    return chosen


if __name__ == "__main__":
    main()
