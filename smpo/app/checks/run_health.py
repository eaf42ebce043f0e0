"""`smpo doctor RUN`: the metrics of a run against the bands of healthy runs. Reads the run's own log, without torch.

Bands are wide on purpose. They come from the runs behind docs/log.md and docs/ablation.md and from what the formulas
allow; a number outside is a reason to look, not a verdict. Curves are judged by their last quarter, since the first
updates of every healthy run look alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from statistics import fmean, median
from typing import Any

from smpo.app.checks.machine import Check, State
from smpo.runs.locate import settings_of
from smpo.runs.lock import read_lock as read_json
from smpo.runs.manifest import read_manifest
from smpo.runs.store import RunFolder
from smpo.tracking.jsonl import Point, read_metrics
from smpo.tracking.mirror import read_place

__all__ = ["BANDS", "Band", "examine"]


@dataclass(frozen=True)
class Band:
    """`low` to `high` is healthy; beyond `far_low` or `far_high` something is broken. `why` is what it means."""

    low: float
    high: float
    why: str
    far_low: float = -math.inf
    far_high: float = math.inf

    def state(self, value: float) -> State:
        if not math.isfinite(value) or not self.far_low <= value <= self.far_high:
            return "broken"
        return "fine" if self.low <= value <= self.high else "warning"

    def __str__(self) -> str:
        low = "" if math.isinf(self.low) else f"{self.low:g}"
        high = "" if math.isinf(self.high) else f"{self.high:g}"
        return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"


_INF = math.inf
BANDS: Mapping[str, Band] = {
    # Noise has mean square 1. Coarse grids give thin noise (0.2 taught the shapes world the wrong thing, docs/log.md);
    # inversion that runs away goes to hundreds.
    "tau_squared of images": Band(
        0.5,
        2.0,
        "the inverted noise should be as strong as noise: more steps, `inversion.by=reference`, t_min",
        0.05,
        8.0,
    ),
    # Points in the plane are determined by few numbers, and inversion brings them near the mean.
    "tau_squared of points": Band(0.1, 2.0, "the inverted noise should be weaker than noise, and steady", 0.01, 8.0),
    "implicit_accuracy": Band(
        0.55, 0.98, "below one half it prefers losers; near one it has learnt the pairs by heart", 0.4
    ),
    "margin": Band(0.0, _INF, "the margin should grow towards the winners", -1.0),
    "gap/winner as a share": Band(
        -1.0, 0.05, "winners are denoised worse than by the base: lower `train.lr`, or a larger beta", far_high=0.5
    ),
    "grad_norm, last to first": Band(0.01, 10.0, "gradients explode or vanish: lower `train.lr`", 0.0, 1000.0),
    # A scale that doubles every 2,000 updates overflows as often; the first ones find where to begin.
    "skipped_share": Band(
        -_INF, 0.2, "gradients overflow in fp16: `train.precision=bf16`, a smaller beta, a lower `train.lr`"
    ),
    "seconds an update, last to first": Band(
        -_INF, 2.0, "updates take longer and longer: heat, memory, other processes"
    ),
    "slowest update, in medians": Band(-_INF, 20.0, "training stood still: a slow disk, or a machine that others use"),
}
"""Name -> what is healthy. Ratios are those of the last quarter of a run to its first."""


def examine(run: RunFolder) -> list[Check]:
    """All checks of a run that goes on, was killed, has only begun, or is done."""
    points, settings = read_metrics(run.path), settings_of(run)
    checks = [*_state(run, settings, points), *_history(run)]
    curves: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.values.items():
            if name.startswith(("train/", "holdout/")):
                curves.setdefault(name, []).append(value)
    for name, values in curves.items():
        if broken := sum(not math.isfinite(value) for value in values):
            checks.append(Check(name, "broken", f"{broken} of {len(values)} values are not finite"))
    checks += [*_training(curves, settings), *_gradients(curves, settings), *_time(points), *_files(run)]
    evaluation = read_json(run.path / "evaluation.json")
    if evaluation:
        checks.append(Check("result", "fine", str(evaluation.get("headline", ""))))
        warnings = evaluation.get("warnings")
        checks += [Check("result", "warning", str(w)) for w in (warnings if isinstance(warnings, list) else ())]
    return checks


def _state(run: RunFolder, settings: Mapping[str, Any], points: Sequence[Point]) -> Iterator[Check]:
    status, summary = run.status(), run.summary()
    total = settings.get("train.steps")
    step = max((point.step for point in points), default=0)
    about = f"{summary}, {step} of {total or '?'} updates"
    if summary in ("done", "running"):
        yield Check("state", "fine", about)
    elif summary == "pruned":
        yield Check("state", "note", f"{about}: {status.message}")
    else:
        how = f"`smpo run {quote(str(run.path))} --resume`" if run.resolved.exists() else "its spec, with `--resume`,"
        reason = f": {status.message}" if status.message else ""
        yield Check("state", "broken" if summary == "failed" else "warning", about + reason, f"{how} goes on")


def _history(run: RunFolder) -> Iterator[Check]:
    """Refused updates, updates that were left out, and resumes on another machine."""
    if (run.path / "autopsy.json").exists():
        message = read_json(run.path / "autopsy.json").get("message", "see autopsy.json")
        yield Check("alarm", "note" if run.summary() == "done" else "broken", f"an update was refused: {message}")
    gaps = read_json(run.path / "left_out.json").get("updates")
    if isinstance(gaps, list) and gaps:
        count = len({n for gap in gaps for n in range(int(gap["first"]), int(gap["last"]) + 1)})
        message = f"{count} updates were left out, after losses that were not numbers: {gaps[-1]['reason']}"
        yield Check("left out", "warning", message, "`autopsy/` has their pairs")
    resumed = read_json(run.lock_file).get("resumed")
    for one in resumed if isinstance(resumed, list) else ():
        changed = one.get("changes") if isinstance(one, dict) else None
        if changed:
            yield Check("resume", "warning", f"after update {one.get('update')} it went on with {'; '.join(changed)}")


def _training(curves: Mapping[str, Sequence[float]], settings: Mapping[str, Any]) -> Iterator[Check]:
    inverted = settings.get("inversion.use", "none") != "none"
    points = settings.get("model.use") == "plane"
    if inverted and (tau := _last(curves, "train/tau_squared")) is not None:
        yield _banded("tau_squared", tau, BANDS[f"tau_squared of {'points' if points else 'images'}"])
    # Errors on inverted noise say nothing of this kind: the network that was followed is right by construction.
    where = "holdout" if "holdout/gap/winner" in curves else "train"
    for name in ("implicit_accuracy", "margin"):
        if (value := _last(curves, f"{where}/{name}")) is not None:
            yield _banded(name, value, BANDS[name])
    if (where == "holdout" or not inverted) and f"{where}/gap/winner" in curves:
        gap = _last(curves, f"{where}/gap/winner") or 0.0
        base = (_last(curves, f"{where}/error/winner") or 0.0) - gap
        yield _banded("gap/winner", gap / max(base, 1e-12), BANDS["gap/winner as a share"])


def _gradients(curves: Mapping[str, Sequence[float]], settings: Mapping[str, Any]) -> Iterator[Check]:
    norms = [x for x in curves.get("train/grad_norm", ()) if math.isfinite(x)]
    if norms:
        quarter = max(1, len(norms) // 4)
        first, last = median(norms[:quarter]), median(norms[-quarter:])
        ratio = last / first if first else math.inf
        clip = settings.get("train.clip")
        clipped = f", {sum(x > clip for x in norms) / len(norms):.0%} of updates clipped" if clip else ""
        shown = f"{last:.3g}, at first {first:.3g}{clipped}"
        yield _banded("grad_norm", ratio, BANDS["grad_norm, last to first"], shown)
    if share := curves.get("train/skipped_share"):
        skipped = f"{curves['train/skipped_updates'][-1]:,.0f} attempts at updates overflowed and were repeated"
        yield _banded("skipped_share", share[-1], BANDS["skipped_share"], f"{share[-1]:.2%}: {skipped}")
    if rates := curves.get("train/lr"):
        message = f"{rates[-1]:.3g} now, {max(rates):.3g} at its highest"
        yield Check("lr", "fine" if max(rates) > 0 else "broken", message)


def _time(points: Sequence[Point]) -> Iterator[Check]:
    """From the times at which updates were reported; pauses for evaluation and resumes are among the slowest."""
    rows = [point for point in points if "train/loss" in point.values]
    speeds = [point.values.get("train/pairs_per_second", 0.0) for point in rows]
    taken = [1 / speed for speed in speeds if speed > 0 and math.isfinite(speed)]
    if len(taken) < 8:
        return
    quarter = len(taken) // 4
    first, last, usual = median(taken[1 : quarter + 1]), median(taken[-quarter:]), median(taken)
    shown = f"{1 / usual:.3g} pairs a second"
    yield _banded("speed", last / first, BANDS["seconds an update, last to first"], shown)
    yield _banded("stalls", max(taken[1:]) / usual, BANDS["slowest update, in medians"])


def _files(run: RunFolder) -> Iterator[Check]:
    manifests = sorted(run.checkpoints.glob("step-*/manifest.json"))
    checkpoints = f"{len(manifests)} checkpoints"
    if run.summary() == "done":
        hashed = read_manifest(run)
        state: State = "fine" if run.model.is_dir() else "broken"
        if hashed:
            yield Check("files", state, f"{checkpoints}, {len(hashed)} files with hashes: `smpo verify` checks them")
        else:
            yield Check("files", state, checkpoints, "it has no files.json")
    elif manifests:
        yield Check("files", "fine", f"{checkpoints}, the newest after update {int(manifests[-1].parent.name[5:])}")
    else:
        yield Check("files", "note", "no checkpoint yet: `runtime.checkpoint_every` writes some on the way")
    sent = read_place(run.path).get("metrics")
    if isinstance(sent, int) and run.metrics.exists() and not run.is_live() and sent < run.metrics.stat().st_size:
        remedy = f"`smpo track sync {quote(str(run.path))}`"
        yield Check("tracking", "warning", "MLflow has not got all of its log", remedy)


def _banded(name: str, value: float, band: Band, shown: str = "") -> Check:
    state = band.state(value)
    number = f"{shown} (ratio {value:.3g})" if shown else f"{value:.3g}"
    return Check(name, state, f"{number}; healthy is {band}", "" if state == "fine" else band.why)


def _last(curves: Mapping[str, Sequence[float]], name: str) -> float | None:
    """The mean over the last quarter."""
    values = curves.get(name)
    return fmean(values[-max(1, len(values) // 4) :]) if values else None
