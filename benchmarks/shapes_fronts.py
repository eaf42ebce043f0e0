"""Gain against distance from the base, per method, on shapes: what a table at one learning rate can't show.

    python benchmarks/shapes_fronts.py                  # three quarters of an hour of one core; stopped, it goes on
    python benchmarks/shapes_fronts.py --quick          # seconds, to see that it works; no result

SmPO's weight changes the size of a step, so at equal learning rates it has gone further after equal updates. Here every
run is measured on its way, and methods are compared where they have gone *equally far*: by the error distance of
`smpo.evaluation.results.drift`, on whose square root gains are interpolated prompt by prompt. Learning rate and beta
are chosen per method on tuning prompts with seed 0; what is reported comes from other seeds and untouched prompts.
Every path is kept as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from output import add_arguments, target
from quickstart import machine, world

HERE = Path(__file__).parent
GRID = (("3e-5", "500"), ("3e-5", "2000"), ("1e-4", "500"), ("1e-4", "2000"))
"""Learning rate and beta. A path at a high rate passes through the distances at which lower ones end."""
SEEDS = (1, 2, 3)
INVERTED = "inversion={use: renoise, steps: 12, spacing: quadratic, by: policy}"
METHODS = {
    "DPO": ["objective.use=dpo", "smoothing=hard", "inversion=none"],
    "DPO + smoothing": ["inversion=none"],
    "+ inversion": ["objective.use=dpo", "smoothing=hard", INVERTED],
    "+ smoothing = SmPO": [INVERTED],
}
JUDGE = "shapes-judge"


def path_of(
    method: str, rate: str, beta: str, seed: int, split: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One run, measured at the marks: distances, and the judge's gain on every prompt."""
    from smpo.app.build.build import build_run
    from smpo.app.evaluate.evaluate import evaluate_run
    from smpo.engine.loop import fit
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    sets = [
        *METHODS[method],
        f"objective.beta={beta}",
        f"train.lr={rate}",
        f"train.seed={seed}",
        f"train.steps={options.marks[-1]}",
        "train.schedule=constant",  # a decaying rate would make early marks another experiment
        f"train.warmup={min(5, options.marks[0])}",
        f"evaluate.prompts=shapes-{split}",
        f"evaluate.limit={options.prompts}",
        f"evaluate.rewards=[{JUDGE}, shapes-reward]",
        f"runtime.cache={options.cache}",
        f"runtime.device={options.device}",
        *(["train.batch=4", "data.limit=16", "evaluate.steps=2"] if options.quick else []),
    ]
    resolved = resolve(HERE.parent / "experiments" / "quickstart.yaml", skeleton=ExperimentSpec, sets=sets)
    live = build_run(resolved.spec, report=None, progress=lambda *_: None, say=print)
    found = []
    for report in fit(live.session):
        if report.step not in options.marks:
            continue
        evaluation = evaluate_run(resolved, live, lambda *_: None)
        judge = evaluation.judgement(JUDGE)
        assert evaluation.drift is not None
        far = {f"{one.kind}{' ' + one.by if one.by else ''}": one.value for one in evaluation.drift.distances}
        found.append(
            {
                "step": report.step,
                "distance": far,
                "gain": float(judge.gains.mean()),
                "win_rate": judge.comparison.win_rate,
                "gains": [round(float(gain), 5) for gain in judge.gains],
                "reward_gain": float(evaluation.judgement("shapes-reward").gains.mean()),
            }
        )
    return found


def groups_of(limit: int) -> dict[str, list[str]]:
    """The cluster of each prompt, in the order in which gains are kept."""
    from smpo.components.prompts import ShapesPrompts
    from smpo.evaluation.sampling.slots import spread

    splits = ("tuning", "untouched")
    return {split: [p.group for p in spread(ShapesPrompts(split=split).load(), limit)] for split in splits}


def at_distance(path: list[dict[str, Any]], error: float) -> Any:
    """Each prompt's gain where the path crosses this error distance: linear in its square root, from 0 at the base."""
    import numpy as np

    marks = sorted(path, key=lambda mark: mark["distance"]["error"])
    places = [0.0, *(mark["distance"]["error"] ** 0.5 for mark in marks)]
    gains = np.array([np.zeros(len(marks[0]["gains"])), *(mark["gains"] for mark in marks)])
    if error**0.5 > places[-1] * (1 + 1e-9):
        return None
    above = max(1, int(np.searchsorted(places, error**0.5)))
    above = min(above, len(places) - 1)
    step = places[above] - places[above - 1]
    share = (error**0.5 - places[above - 1]) / step if step else 1.0  # a mark that is no further than the last
    return gains[above - 1] + share * (gains[above] - gains[above - 1])


def reach(paths: list[list[dict[str, Any]]]) -> float:
    """The largest distance that all of these paths get to."""
    return min(max(mark["distance"]["error"] for mark in path) for path in paths)


def choose(tuning: dict[str, list[dict[str, Any]]], methods: list[str]) -> dict[str, tuple[str, str]]:
    """Per method, the learning rate and beta that gained most where every method's furthest setting gets to."""
    by_method: dict[str, dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for key, path in tuning.items():
        method, rate, beta = key.split(" | ")
        by_method.setdefault(method, {})[rate, beta] = path
    common = min(max(reach([path]) for path in by_method[method].values()) for method in methods)
    chosen = {}
    for method in methods:
        reached = {
            setting: gains.mean()
            for setting, path in by_method[method].items()
            if (gains := at_distance(path, common)) is not None
        }
        chosen[method] = max(reached, key=lambda setting: reached[setting])
    return chosen


def summary(store: dict[str, Any]) -> list[dict[str, Any]]:
    """Per method and distance: the gain over prompts and seeds, and its difference from DPO's, Holm-corrected."""
    import numpy as np

    from smpo.evaluation.statistics.over_seeds import contrast
    from smpo.evaluation.statistics.paired import holm

    final = {tuple(key.split(" | ")): path for key, path in store["final"].items()}
    methods = list(dict.fromkeys(method for method, _ in final))
    far = reach(list(final.values()))
    rows, raw = [], []
    for share in (0.25, 0.5, 1.0):
        error = far * share
        gains = {
            method: np.array([at_distance(path, error) for (one, _), path in final.items() if one == method])
            for method in methods
        }
        groups = store["groups"]["untouched"]
        for method in methods:
            own = contrast(gains[method], np.zeros_like(gains[method]), groups)
            against = contrast(gains[method], gains["DPO"], groups) if method != "DPO" else None
            assert own is not None
            raw.append(against.p_value if against else None)
            rows.append(
                {
                    "error": error,
                    "method": method,
                    "seeds": own.seeds,
                    "prompts": own.prompts,
                    "gain": own.gain.value,
                    "low": own.gain.low,
                    "high": own.gain.high,
                    "win_rate": own.win_rate.value,
                    **(
                        {
                            "over_dpo": against.gain.value,
                            "over_dpo_low": against.gain.low,
                            "over_dpo_high": against.gain.high,
                        }
                        if against
                        else {}
                    ),
                }
            )
    for row, p in zip(rows, holm(raw), strict=True):
        row["p_holm"] = p
    return rows


def figure(store: dict[str, Any], file: Path) -> None:
    """The judge's gain against the root of the error distance, a line a run."""
    from PIL import Image, ImageDraw, ImageFont

    colours = dict(zip(METHODS, ("#1f4e79", "#d07a28", "#2a9d8f", "#a3262a"), strict=True))
    paths = [(key.split(" | ")[0], path) for key, path in store["final"].items()]
    far = max(mark["distance"]["error"] ** 0.5 for _, path in paths for mark in path) or 1.0
    gains = [mark["gain"] for _, path in paths for mark in path]
    low, high = min(0.0, *gains), max(gains) * 1.05 or 1.0
    scale, wide, tall, left, top = 2, 620, 380, 70, 60
    canvas = Image.new("RGB", ((wide + left + 30) * scale, (tall + top + 90) * scale), "#ffffff")
    draw = ImageDraw.Draw(canvas)

    def at(error: float, gain: float) -> tuple[float, float]:
        y = top + tall - (gain - low) / (high - low) * tall
        return (left + error**0.5 / far * wide) * scale, y * scale

    def text(x: float, y: float, words: str, colour: str = "#1a1a1a", size: int = 13, anchor: str = "la") -> None:
        font = ImageFont.load_default(size=size * scale)
        draw.text((x * scale, y * scale), words, colour, font, anchor=anchor)

    text(20, 14, "Judge's gain against distance from the base, one line a run", size=17)
    draw.rectangle((left * scale, top * scale, (left + wide) * scale, (top + tall) * scale), outline="#cccccc")
    draw.line((*at(0, 0.0), *at(far**2, 0.0)), "#dddddd", scale)
    for method, path in paths:
        points = [at(0, 0.0), *(at(m["distance"]["error"], m["gain"]) for m in path)]
        draw.line(points, colours[method], 2 * scale)
        for x, y in points[1:]:
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), colours[method])
    for share in (0, 0.5, 1):
        text(left + share * wide, top + tall + 6, f"{share * far:.2g}", "#6b6b6b", 11, "ma")
        text(left - 6, top + tall - share * tall, f"{low + share * (high - low):.2g}", "#6b6b6b", 11, "rm")
    text(left + wide / 2, top + tall + 24, "root of the error distance", "#6b6b6b", 11, "ma")
    for place, (method, colour) in enumerate(colours.items()):
        x, y = left + 160 * place, top + tall + 56
        draw.line((x * scale, (y + 7) * scale, (x + 20) * scale, (y + 7) * scale), colour, 3 * scale)
        text(x + 26, y, method)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file)


def markdown(store: dict[str, Any]) -> str:
    """The summary as a table for the docs."""
    head = ["error distance", "method", "lr, beta", "seeds", "gain [95 %]", "wins, %", "over DPO [95 %]", "p"]
    rows = [head, ["---"] * len(head)]
    for row in store["summary"]:
        chosen, p = store["chosen"][row["method"]], row["p_holm"]
        rows.append(
            [
                f"{row['error']:.2g}",
                row["method"],
                f"{chosen['lr']}, {chosen['beta']}",
                str(row["seeds"]),
                _span(row, "gain", "low", "high"),
                f"{100 * row['win_rate']:.0f}",
                _span(row, "over_dpo", "over_dpo_low", "over_dpo_high") if "over_dpo" in row else "–",
                "–" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _span(row: dict[str, Any], value: str, low: str, high: str) -> str:
    return f"{row[value]:+.4f} [{row[low]:+.4f}, {row[high]:+.4f}]"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="the picture to write, instead of the docs' own")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/cache"))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop beginning new paths after so long")
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    options.out = target(options, "shapes_fronts.json")
    if not options.quick:
        options.figure = options.figure or HERE.parent / "docs" / "pictures" / "shapes_fronts.png"
        return measure(options)
    options.figure = options.figure or options.out.with_suffix(".png")
    options.out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options.cache = Path(folder)
        return measure(options)


def measure(options: argparse.Namespace) -> None:
    """Measures what is missing and, once nothing is, writes result, picture and table."""
    options.marks, options.prompts, grid, seeds, methods = (10, 20, 40, 60), 116, GRID, SEEDS, list(METHODS)
    if options.quick:
        options.marks, options.prompts, grid, seeds = (1,), 4, GRID[:1], (1, 2)
        methods = ["DPO", "DPO + smoothing"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    store: dict[str, Any] = {
        "world": world(),
        "tuning": {},
        "final": {},
        "groups": groups_of(options.prompts),
    }
    if options.out.exists():
        known = json.loads(options.out.read_text())
        if known.get("world") == store["world"]:
            store = known
        else:
            print(f"{options.out} is about other weights or pairs: measured anew")
    began, cpu = time.monotonic(), time.process_time()

    def measured(part: str, key: str, *which: Any) -> bool:
        """Whether the path is there now."""
        if key not in store[part]:
            if time.monotonic() - began > 60 * options.minutes:
                return False
            start = time.process_time()
            store[part][key] = path_of(*which, options)
            last = store[part][key][-1]
            print(
                f"{part:7s} {key:44s} error {last['distance']['error']:.5f}  gain {last['gain']:+.4f}  "
                f"{time.process_time() - start:.0f} s of CPU",
                flush=True,
            )
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(store) + "\n")
        return True

    tuned = [
        measured("tuning", f"{method} | {rate} | {beta}", method, rate, beta, 0, "tuning")
        for method in methods
        for rate, beta in grid
    ]
    if not all(tuned):
        return print("not all paths are measured yet: run it again to go on")
    chosen = choose(store["tuning"], methods)
    done = [
        measured("final", f"{method} | seed {seed}", method, *chosen[method], seed, "untouched")
        for seed in seeds
        for method in methods
    ]
    if not all(done):
        return print("not all paths are measured yet: run it again to go on")
    store |= {
        "chosen": {method: {"lr": rate, "beta": beta} for method, (rate, beta) in chosen.items()},
        "summary": summary(store),
        "machine": machine(),
        "cpu_seconds_of_the_last_part": round(time.process_time() - cpu),
    }
    options.out.write_text(json.dumps(store) + "\n")
    figure(store, options.figure)
    print(markdown(store))
    return None


if __name__ == "__main__":
    main()
