"""What a ladder found: rungs over seeds, each against the base model and against the rung it builds on.

`tabulate` works on what runs left in their folders (`evaluation.json`, `cost.json`), so a table can be made again, or
made of half a ladder. Holm's correction is over all of a table's questions of one sort: every rung and judge against
the base, and, apart from that, every rung and judge against the rung before.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.card import harmless
from smpo.evaluation.seeds import Contrast, Estimate, contrast
from smpo.evaluation.statistics import holm

__all__ = ["Cost", "Outcome", "Row", "RungRuns", "Verdict", "tabulate"]

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class RungRuns:
    """The finished runs of a rung: for each seed, what its evaluation and its ledger say."""

    name: str
    against: str | None
    evaluations: Mapping[int, Mapping[str, Any]]
    costs: Mapping[int, Mapping[str, Any]]
    folders: Mapping[int, str] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Means over a rung's seeds."""

    seconds: float
    """Training, inversion included; not evaluation."""
    passes: float
    """Network passes of a picture in training; a backward counts as two."""
    pairs: float
    tflop: float | None
    peak_bytes: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "passes": self.passes,
            "pairs": self.pairs,
            "tflop": self.tflop,
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True)
class Verdict:
    """One judge's view of a rung."""

    judge: str
    made_labels: bool
    mean: float
    median: float
    mean_base: float
    median_base: float
    against_base: Contrast
    p_base: float | None
    """Holm-adjusted."""
    against_rung: Contrast | None
    p_rung: float | None
    points_per_compute: float | None
    """Points of win rate above one half that a million passes bought."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "made_labels": self.made_labels,
            "mean": self.mean,
            "median": self.median,
            "mean_base": self.mean_base,
            "median_base": self.median_base,
            "against_base": self.against_base.to_dict(),
            "p_base_holm": self.p_base,
            "against_rung": self.against_rung.to_dict() if self.against_rung else None,
            "p_rung_holm": self.p_rung,
            "win_points_per_million_passes": self.points_per_compute,
        }


@dataclass(frozen=True)
class Row:
    """One rung."""

    name: str
    against: str | None
    seeds: tuple[int, ...]
    failures: Mapping[int, str]
    folders: Mapping[int, str]
    cost: Cost | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Outcome:
    """The whole table."""

    name: str
    judges: tuple[str, ...]
    prompts: int
    role: str
    rows: tuple[Row, ...]
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "complete": self.complete,
            "prompts": self.prompts,
            "role": self.role,
            "judges": list(self.judges),
            "rungs": [
                {
                    "name": row.name,
                    "against": row.against,
                    "seeds": list(row.seeds),
                    "failures": {str(seed): why for seed, why in row.failures.items()},
                    "folders": {str(seed): folder for seed, folder in row.folders.items()},
                    "cost": row.cost.to_dict() if row.cost else None,
                    "judges": [verdict.to_dict() for verdict in row.verdicts],
                }
                for row in self.rows
            ],
        }

    def metrics(self) -> dict[str, float]:
        """`ladder/<rung>/<judge>/<figure>`."""
        found: dict[str, float] = {}
        for row in self.rows:
            for verdict in row.verdicts:
                rate, gain = verdict.against_base.win_rate, verdict.against_base.gain
                head = f"ladder/{row.name}/{verdict.judge}"
                found |= {
                    f"{head}/win_rate": rate.value,
                    f"{head}/win_rate_low": rate.low,
                    f"{head}/gain": gain.value,
                }
        return found

    def table(self, judge: str) -> list[dict[str, str]]:
        """A row a rung, by one judge; the same keys in each."""
        lines = []
        for row in self.rows:
            found = next((verdict for verdict in row.verdicts if verdict.judge == judge), None)
            seeds = f"{len(row.seeds)}" + (f" ({len(row.failures)} failed)" if row.failures else "")
            cells = {"rung": row.name, "on": row.against or "–", "seeds": seeds}
            empty = "–"
            if found is None:
                lines.append(cells | dict.fromkeys(_COLUMNS, empty))
                continue
            digits = _digits(found.against_base.gain)
            other = found.against_rung
            lines.append(
                cells
                | {
                    "mean": f"{found.mean:.{digits}f}",
                    "median": f"{found.median:.{digits}f}",
                    "gain on the base": _gain(found.against_base.gain, digits),
                    "wins over base, %": _share(found.against_base.win_rate),
                    "p": _p(found.p_base),
                    "gain on that rung": _gain(other.gain, digits) if other else empty,
                    "wins over it, %": _share(other.win_rate) if other else empty,
                    "p ": _p(found.p_rung),
                    "spread": "–" if found.against_base.gain.between is None
                    else f"{found.against_base.gain.between:.{digits + 1}f}",
                }
            )  # fmt: skip
        return lines

    def costs(self) -> list[dict[str, str]]:
        """What each rung took, and what it bought by the first judge."""
        lines = []
        for row in self.rows:
            if row.cost is None:
                continue
            worth = row.verdicts[0].points_per_compute if row.verdicts else None
            lines.append(
                {
                    "rung": row.name,
                    "training": f"{row.cost.seconds:.1f} s",
                    "passes": f"{row.cost.passes:,.0f}",
                    "pairs": f"{row.cost.pairs:,.0f}",
                    "TFLOP": "–" if row.cost.tflop is None else f"{row.cost.tflop:.3g}",
                    "memory": f"{row.cost.peak_bytes / 2**30:.2f} GiB",
                    "win points per million passes": "–" if worth is None else f"{worth:.3g}",
                }
            )
        return lines

    def findings(self) -> list[str]:
        """In words: which steps are resolved, and which aren't. Never more than the intervals say."""
        said = []
        for judge in self.judges:
            up, down, open_ = list[str](), list[str](), list[str]()
            for row in self.rows:
                for verdict in row.verdicts:
                    if verdict.judge != judge or verdict.against_rung is None:
                        continue
                    step, gain = f"{row.name} over {row.against}", verdict.against_rung.gain
                    sure = verdict.p_rung is not None and verdict.p_rung < 0.05 and gain.excludes(0.0)
                    (open_ if not sure else up if gain.value > 0 else down).append(step)
            parts = [
                f"{word}: {'; '.join(steps)}"
                for word, steps in (("better", up), ("worse", down), ("not resolved", open_))
                if steps
            ]
            if parts:
                said.append(f"{judge}: {'. '.join(parts)}.")
        seeds = {len(row.seeds) for row in self.rows}
        if seeds and min(seeds) < 2:
            said.append(
                "Some rung has fewer than two seeds: its intervals say nothing about another training run."
            )
        elif seeds and min(seeds) < 5:
            said.append(f"With {min(seeds)} seeds the spread between seeds is itself known only roughly.")
        return said

    def markdown(self) -> str:
        """Tables and findings as a document."""
        parts = [
            f"# {harmless(self.name)}",
            f"{self.prompts:,} {self.role} prompts. Intervals are 95 % over prompts and seeds together; `p` is "
            "corrected by Holm over rungs and judges; `spread` is the standard deviation of the gain between seeds.",
        ]
        for judge in self.judges:
            parts += [f"## {harmless(judge)}", _grid(self.table(judge))]
        parts += ["## cost", _grid(self.costs()), *self.findings()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def csv(self) -> str:
        """One line for each rung and judge, all figures in full."""
        buffer = io.StringIO()
        writer = None
        for row in self.rows:
            for verdict in row.verdicts:
                base, other = verdict.against_base, verdict.against_rung
                line: dict[str, Any] = {
                    "rung": row.name, "against": row.against, "judge": verdict.judge, "seeds": len(row.seeds),
                    "prompts": base.prompts, "mean": verdict.mean, "median": verdict.median,
                    "mean_base": verdict.mean_base, "median_base": verdict.median_base,
                    **_flat("gain", base.gain), **_flat("win_rate", base.win_rate), "p_holm": verdict.p_base,
                    **_flat("gain_on_rung", other.gain if other else None),
                    **_flat("win_rate_over_rung", other.win_rate if other else None), "p_rung_holm": verdict.p_rung,
                    **(row.cost.to_dict() if row.cost else {}),
                    "win_points_per_million_passes": verdict.points_per_compute,
                }  # fmt: skip
                if writer is None:
                    writer = csv.DictWriter(buffer, list(line), lineterminator="\n", restval="")
                    writer.writeheader()
                writer.writerow({name: line.get(name) for name in writer.fieldnames})
        return buffer.getvalue()


_COLUMNS = (
    "mean", "median", "gain on the base", "wins over base, %", "p", "gain on that rung", "wins over it, %", "p ",
    "spread",
)  # fmt: skip


def tabulate(name: str, rungs: Sequence[RungRuns], *, seeds: int) -> Outcome:
    """The table of these runs. Seeds that only one of two rungs has finished are left out of their comparison."""
    known = [evaluation for rung in rungs for evaluation in rung.evaluations.values()]
    judges = tuple(judgement["name"] for judgement in known[0]["judgements"]) if known else ()
    by_name = {rung.name: rung for rung in rungs}
    rows = [_row(rung, by_name.get(rung.against or ""), judges) for rung in rungs]
    for sort in ("base", "rung"):
        places = [(i, k) for i, row in enumerate(rows) for k in range(len(row.verdicts))]
        raw = [_raw(rows[i].verdicts[k], sort) for i, k in places]
        for (i, k), p in zip(places, holm(raw), strict=True):
            verdicts = list(rows[i].verdicts)
            one = verdicts[k]
            verdicts[k] = replace(one, p_base=p) if sort == "base" else replace(one, p_rung=p)
            rows[i] = replace(rows[i], verdicts=tuple(verdicts))
    return Outcome(
        name=name,
        judges=judges,
        prompts=len(known[0]["prompts"]) if known else 0,
        role=str(known[0]["role"]) if known else "",
        rows=tuple(rows),
        complete=all(len(rung.evaluations) == seeds for rung in rungs),
    )


def _row(rung: RungRuns, other: RungRuns | None, judges: Sequence[str]) -> Row:
    seeds = tuple(sorted(rung.evaluations))
    cost = _cost([rung.costs[seed] for seed in seeds if seed in rung.costs])
    verdicts = []
    for judge in judges if seeds else ():
        policy, base, groups, made = _scores(rung, judge, seeds)
        on_base = contrast(policy, base, groups)
        if on_base is None:
            continue
        on_rung = None
        both = tuple(seed for seed in seeds if other is not None and seed in other.evaluations)
        if other is not None and both:
            on_rung = contrast(_scores(rung, judge, both)[0], _scores(other, judge, both)[0], groups)
        points = None
        if cost is not None and cost.passes:
            points = 100 * (on_base.win_rate.value - 0.5) / (cost.passes / 1e6)
        verdicts.append(
            Verdict(
                judge=judge,
                made_labels=made,
                mean=float(np.nanmean(policy)),
                median=float(np.nanmean(np.nanmedian(policy, axis=1))),
                mean_base=float(np.nanmean(base)),
                median_base=float(np.nanmean(np.nanmedian(base, axis=1))),
                against_base=on_base,
                p_base=None,
                against_rung=on_rung,
                p_rung=None,
                points_per_compute=points,
            )
        )
    return Row(rung.name, rung.against, seeds, rung.failures, rung.folders, cost, tuple(verdicts))


def _scores(rung: RungRuns, judge: str, seeds: Sequence[int]) -> tuple[Scores, Scores, list[str], bool]:
    """`(policy [S, P], base [S, P], cluster of each prompt, whether the judge made the labels)`."""
    sides: dict[str, list[Scores]] = {"policy": [], "base": []}
    made = False
    for seed in seeds:
        found = next(one for one in rung.evaluations[seed]["judgements"] if one["name"] == judge)
        made = bool(found["made_labels"])
        for side, rows in sides.items():
            images = np.array(found[side], dtype=np.float64)  # None becomes NaN
            rows.append(images.mean(axis=1))
    prompts = rung.evaluations[seeds[0]]["prompts"]
    groups = [prompt["group"] or f"text: {prompt['text']}" for prompt in prompts]
    return np.array(sides["policy"]), np.array(sides["base"]), groups, made


def _cost(ledgers: Sequence[Mapping[str, Any]]) -> Cost | None:
    if not ledgers:
        return None
    seconds = [one["seconds"].get("train", 0.0) + one["seconds"].get("invert", 0.0) for one in ledgers]
    flops = [one["training_tflop"] for one in ledgers]
    return Cost(
        seconds=float(np.mean(seconds)),
        passes=float(np.mean([one["training_passes"] for one in ledgers])),
        pairs=float(np.mean([one["pairs"] for one in ledgers])),
        tflop=float(np.mean(flops)) if all(flop is not None for flop in flops) else None,
        peak_bytes=float(max(one["peak_bytes"] for one in ledgers)),
    )


def _raw(verdict: Verdict, sort: str) -> float | None:
    found = verdict.against_base if sort == "base" else verdict.against_rung
    return found.p_value if found is not None else None


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {
        name: estimate.value if estimate else None,
        f"{name}_low": estimate.low if estimate else None,
        f"{name}_high": estimate.high if estimate else None,
        f"{name}_between_seeds": estimate.between if estimate else None,
    }


def _digits(estimate: Estimate) -> int:
    width = (estimate.high - estimate.low) / 2 or abs(estimate.value) or 1.0
    return max(0, min(8, 1 - math.floor(math.log10(width))))


def _gain(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:+.{digits}f} [{estimate.low:+.{digits}f}, {estimate.high:+.{digits}f}]"


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _grid(rows: Sequence[Mapping[str, str]]) -> str:
    """A markdown table; bars inside cells would end them."""
    if not rows:
        return ""
    head, *body = ([harmless(cell) for cell in line] for line in (rows[0], *(row.values() for row in rows)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
