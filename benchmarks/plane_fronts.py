"""Reward against distance from the base, per method, in the plane: what a table at one learning rate can't show.

    python benchmarks/plane_fronts.py
    python benchmarks/plane_fronts.py --quick      # seconds, to see that it works; no result

SmPO's weight changes the size of a step, so at equal learning rates it has gone further after equal updates. Here
every run is measured on its way (exact KL at guidance 1, mean radial gain at guidance 1 and 3), and methods are
compared where they have gone *equally far*. Learning rate and beta are chosen per method on tuning starts with one
seed; what is reported comes from other seeds and untouched starts. Measurements are kept as they are made: run it
again to go on.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from output import add_arguments, target, write

HERE = Path(__file__).parent
GRID = (("1e-4", "500"), ("1e-4", "2000"))
"""Learning rate and beta. A path at a high rate passes through the distances at which lower ones end."""
BY_REFERENCE = "inversion={use: %s, steps: 10, by: reference}"
DPO = ["objective.use=dpo", "smoothing=hard", "inversion=none"]
METHODS = {
    "DPO": DPO,
    "+ inversion": [*DPO, BY_REFERENCE % "ddim"],
    "+ smoothing = SmPO": [],
    "DPO + smoothing": ["inversion=none"],
}


@dataclass(frozen=True)
class Size:
    """How much is measured. `marks`: updates after which a run is; `points`: starts of each of the two sets."""

    marks: tuple[int, ...] = (20, 50, 100, 200)
    points: int = 256
    steps: int = 50
    """Of a sampler."""
    batch: int = 128
    methods: tuple[str, ...] = tuple(METHODS)
    grid: tuple[tuple[str, str], ...] = GRID


QUICK = Size(marks=(1, 2), points=8, steps=4, batch=8, methods=("DPO", "+ smoothing = SmPO"), grid=GRID[:1])


def measure(denoiser: Any, split: str, size: Size) -> dict[str, float]:
    """Where the policy is now: drift, and what it gained, on tuning or untouched starts."""
    import numpy as np
    import torch

    from benchmarks.plane_divergence import Sampler, divergence
    from smpo.worlds.plane.network import sample_points, start_noise
    from smpo.worlds.plane.world import off_axis, radius

    first = {"tuning": 5_000_000, "untouched": 7_000_000}[split]
    start = start_noise(range(first, first + size.points))
    conditions = torch.arange(size.points) % 8

    def bound(network: Any) -> Any:
        double = copy.deepcopy(network).double().requires_grad_(False)

        def noise(x: Any, t: int) -> Any:
            times = torch.full((len(x),), t)
            return double(x.reshape(-1, 2, 1, 1), times, conditions).reshape(-1, 2)

        return noise

    found = divergence(
        bound(denoiser.policy),
        bound(denoiser._reference),
        start.reshape(-1, 2),
        Sampler(denoiser.schedule, size.steps),
    )
    asked = conditions.numpy()

    def drawn(network: Any, guidance: float) -> Any:
        points = sample_points(network, start, conditions, denoiser.schedule, guidance=guidance, steps=size.steps)
        return points.reshape(-1, 2).double().numpy()

    out = {"kl": found.kl, "kl_low": found.low, "kl_high": found.high}
    for guidance in (1.0, 3.0):
        ours, theirs = drawn(denoiser.policy, guidance), drawn(denoiser._reference, guidance)
        gains = radius(ours, asked) - radius(theirs, asked)
        out |= {
            f"gain_cfg{guidance:g}": float(gains.mean()),
            f"win_cfg{guidance:g}": float(np.mean(gains > 0)),
            f"off_axis_cfg{guidance:g}": float(off_axis(ours, asked).mean()),
        }
    return out


def path_of(
    method: str, rate: str, beta: str, seed: int, split: str, options: argparse.Namespace
) -> list[dict[str, float]]:
    """One run, measured at the marks."""
    from smpo.app.build.build import build_run
    from smpo.engine.loop import fit
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    sets = [
        *METHODS[method],
        f"train.lr={rate}",
        f"objective.beta={beta}",
        f"train.seed={seed}",
        f"train.batch={options.size.batch}",
        f"train.warmup={min(20, options.size.marks[0])}",
    ]
    resolved = resolve(
        HERE.parent / "experiments" / "plane_smpo.yaml",
        skeleton=ExperimentSpec,
        sets=[
            *sets,
            f"runtime.cache={options.cache}",
            f"runtime.device={options.device}",
            f"train.steps={options.size.marks[-1]}",
        ],
    )
    live = build_run(resolved.spec, report=None, progress=lambda *_: None, say=print)
    found = []
    for report in fit(live.session):
        if report.step in options.size.marks:
            found.append({"step": report.step, **measure(live.session.denoiser, split, options.size)})
    return found


def gain_at(path: list[dict[str, float]], kl: float, what: str = "gain_cfg1") -> float | None:
    """The gain where the path crosses this distance, linear between marks; None if it never gets there."""
    before = {"kl": 0.0, what: 0.0}
    for here in path:
        if here["kl"] >= kl:
            share = (kl - before["kl"]) / (here["kl"] - before["kl"])
            return before[what] + share * (here[what] - before[what])
        before = here
    return None


def summary(store: dict[str, Any], distances: tuple[float, ...] = (0.01, 0.02, 0.04)) -> list[dict[str, Any]]:
    """Per method: the gain at equal distances, a mean over seeds with its t interval, and what is the best possible."""
    import numpy as np
    from scipy import special

    from tools.plane_world import optimum

    def best(kl: float) -> float:
        prices = np.geomspace(0.05, 50, 400)
        found = [optimum(float(price)) for price in prices]
        return float(np.interp(kl, [one.kl for one in found[::-1]], [one.gain for one in found[::-1]]))

    rows = []
    for method in dict.fromkeys(key.rsplit(" seed ", 1)[0] for key in store["final"]):
        paths = [path for key, path in store["final"].items() if key.rsplit(" seed ", 1)[0] == method]
        for kl in distances:
            for what in ("gain_cfg1", "gain_cfg3"):
                reached = [gain for path in paths if (gain := gain_at(path, kl, what)) is not None]
                row: dict[str, Any] = {"method": method, "kl": kl, "what": what, "seeds": len(reached)}
                if reached:
                    row["gain"] = float(np.mean(reached))
                    row["by_seed"] = reached
                    if what == "gain_cfg1":
                        row["of_the_best"] = row["gain"] / best(kl)
                if len(reached) > 1:
                    half = special.stdtrit(len(reached) - 1, 0.975) * np.std(reached, ddof=1) / len(reached) ** 0.5
                    row["half_width"] = float(half)
                rows.append(row)
    return rows


def figure(store: dict[str, Any], file: Path) -> None:
    """Gain at guidance 1 and 3 against KL, a line a run, and at guidance 1 the closed-form optimum."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from tools.plane_world import optimum

    colours = dict(zip(METHODS, ("#1f4e79", "#2a9d8f", "#a3262a", "#d07a28"), strict=True))
    scale, wide, tall, left, top = 2, 460, 340, 64, 70
    canvas = Image.new("RGB", ((2 * (wide + left) + 30) * scale, (tall + top + 80) * scale), "#ffffff")
    draw = ImageDraw.Draw(canvas)

    def text(x: float, y: float, words: str, colour: str = "#1a1a1a", size: int = 13, anchor: str = "la") -> None:
        font = ImageFont.load_default(size=size * scale)
        draw.text((x * scale, y * scale), words, colour, font, anchor=anchor)

    paths = [(key.rsplit(" seed ", 1)[0], path) for key, path in store["final"].items()]
    paths = paths or [(key.split(" lr ")[0], path) for key, path in store["tuning"].items()]
    far = max(point["kl"] for _, path in paths for point in path)
    text(20, 12, "Reward against distance from the base, one line a run", size=17)
    for place, what in enumerate(("gain_cfg1", "gain_cfg3")):
        x0 = left + place * (wide + left)
        best = [optimum(float(price)) for price in np.geomspace(0.05, 50, 400)] if what == "gain_cfg1" else []
        high = 1.05 * max([p[what] for _, path in paths for p in path] + [b.gain for b in best if b.kl <= far])

        def at(kl: float, gain: float, x0: float = x0, high: float = high) -> tuple[float, float]:
            return (x0 + kl / far * wide) * scale, (top + tall - gain / high * tall) * scale

        draw.rectangle((*at(0, high), *at(far, 0)), outline="#cccccc")
        curve = [at(b.kl, b.gain) for b in best if b.kl <= far]
        if curve:
            draw.line(curve, "#9a9a9a", 2 * scale)
        for method, path in paths:
            points = [at(0, 0), *(at(p["kl"], p[what]) for p in path)]
            draw.line(points, colours[method], 2 * scale)
            for x, y in points[1:]:
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), colours[method])
        title = "mean radial gain, guidance 1" if what == "gain_cfg1" else "mean radial gain, guidance 3"
        text(x0, top - 22, title)
        for share in (0, 0.5, 1):
            text(x0 + share * wide, top + tall + 6, f"{share * far:.2g}", "#6b6b6b", 11, "ma")
            text(x0 - 6, top + tall - share * tall, f"{share * high:.2g}", "#6b6b6b", 11, "rm")
        text(x0 + wide / 2, top + tall + 22, "KL(policy || base), nats, at guidance 1", "#6b6b6b", 11, "ma")
    for place, (method, colour) in enumerate([*colours.items(), ("the best possible", "#9a9a9a")]):
        x, y = left + 190 * place, top + tall + 54
        draw.line((x * scale, (y + 7) * scale, (x + 20) * scale, (y + 7) * scale), colour, 3 * scale)
        text(x + 26, y, method, size=12)
    canvas.save(file)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--seeds", type=int, default=4, help="seeds of the final comparison")
    parser.add_argument("--target", type=float, default=0.04, help="KL at which lr and beta are chosen")
    parser.add_argument("--figure", type=Path, help="the picture to write, instead of the docs' own")
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options.size = QUICK if options.quick else Size()
    out = target(options, "plane_fronts.json")
    if not options.quick:
        return compare(options, out)
    options.seeds = 2
    with tempfile.TemporaryDirectory() as folder:
        options.cache = Path(folder)
        options.figure = options.figure or out.with_suffix(".png")
        return compare(options, out)


def compare(options: argparse.Namespace, out: Path) -> None:
    """Measures what is missing, and writes result and picture."""
    store: dict[str, Any] = {"tuning": {}, "final": {}}
    if out.exists() and not options.quick:
        store = json.loads(out.read_text())

    def once(part: str, key: str, method: str, rate: str, beta: str, seed: int, split: str) -> list[dict[str, float]]:
        if key not in store[part]:
            began = time.time()
            store[part][key] = path_of(method, rate, beta, seed, split, options)
            write(out, store)
            last = store[part][key][-1]
            print(
                f"{part} {key}: KL {last['kl']:.3f}, gain {last['gain_cfg1']:+.3f} / {last['gain_cfg3']:+.3f}, "
                f"{time.time() - began:.0f} s",
                flush=True,
            )
        found: list[dict[str, float]] = store[part][key]
        return found

    chosen = {}
    for method in options.size.methods:
        ranked = []
        for rate, beta in options.size.grid:
            path = once("tuning", f"{method} lr {rate} beta {beta}", method, rate, beta, 0, "tuning")
            reached = gain_at(path, options.target)
            # A path that never gets so far is judged by where it ended, behind all that do.
            ranked.append((reached is not None, reached or path[-1]["gain_cfg1"], rate, beta))
        _, _, rate, beta = max(ranked)
        chosen[method] = {"lr": rate, "beta": beta}
    store["chosen"] = chosen
    for seed in range(1, options.seeds + 1):
        for method, one in chosen.items():
            once("final", f"{method} seed {seed}", method, one["lr"], one["beta"], seed, "untouched")
    store["summary"] = summary(store)
    write(out, store)
    figure(store, options.figure or HERE.parent / "docs" / "pictures" / f"{out.stem}.png")


if __name__ == "__main__":
    main()
