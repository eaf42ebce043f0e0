"""The outcome of an ablation: variants over seeds, each against the base model and against the variant it builds on.

`tabulate` works on the files in the runs' folders (`evaluation.json`, `cost.json`), so a table can be made again, or
made of half an ablation. Holm's correction is over all of a table's questions of one sort: every variant and judge
against the base, and, apart from that, every variant and judge against the variant before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.statistics.over_seeds import Contrast, contrast
from smpo.evaluation.statistics.paired import holm

__all__ = ["AblationOutcome", "Cost", "DriftStat", "Row", "VariantRuns", "Verdict", "tabulate"]


@dataclass(frozen=True)
class Cost:
    """Means over a variant's seeds."""

    seconds: float
    """Training, inversion included; not evaluation."""
    passes: float
    """Network passes of a picture in training; a backward counts as two."""
    pairs: float
    tflop: float | None
    peak_bytes: float
    joules: float | None = None
    """Of all devices that report it; the whole run, evaluation included."""


@dataclass(frozen=True)
class Verdict:
    """One judge's view of a variant. p-values are adjusted by Holm."""

    judge: str
    made_labels: bool
    mean: float
    median: float
    mean_base: float
    median_base: float
    against_base: Contrast
    p_base_holm: float | None
    against_variant: Contrast | None
    p_variant_holm: float | None
    win_points_per_million_passes: float | None
    """Points of win rate above one half that a million passes bought."""
    doubt: int = 0
    """As `Judgement.doubt`."""


@dataclass(frozen=True)
class DriftStat:
    """One distance from the base, over a variant's seeds."""

    name: str
    """`picture`, `error`, or `feature (<judge>)`."""
    mean: float
    between: float | None
    """Standard deviation between seeds; None with one."""


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str
    against: str | None
    seeds: tuple[int, ...]
    failures: Mapping[int, str]
    folders: Mapping[int, str]
    cost: Cost | None
    verdicts: tuple[Verdict, ...]
    drift: tuple[DriftStat, ...] = ()
    """Distances of its policies from the base."""

    def verdict(self, judge: str | None) -> Verdict | None:
        return next((verdict for verdict in self.verdicts if verdict.judge == judge), None)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, verdicts under `judges`."""
        data = asdict(self)
        data["judges"] = data.pop("verdicts")
        for judge in data["judges"]:
            del judge["doubt"]
        return data


@dataclass(frozen=True)
class AblationOutcome:
    """The whole table."""

    name: str
    judges: tuple[str, ...]
    prompts: int
    role: str
    rows: tuple[Row, ...]
    complete: bool

    def believed(self) -> str | None:
        """The judge to look at first: the least doubtful over all variants, the first listed among equals."""
        doubts = {
            judge: max((v.doubt for row in self.rows if (v := row.verdict(judge))), default=0) for judge in self.judges
        }
        return min(doubts, key=lambda judge: doubts[judge], default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "complete": self.complete,
            "prompts": self.prompts,
            "role": self.role,
            "judges": list(self.judges),
            "variants": [row.to_dict() for row in self.rows],
        }

    def metrics(self) -> dict[str, float]:
        """`ablation/<variant>/<judge>/<figure>`."""
        found: dict[str, float] = {}
        for row in self.rows:
            for verdict in row.verdicts:
                rate, head = verdict.against_base.win_rate, f"ablation/{row.name}/{verdict.judge}"
                found[f"{head}/win_rate"] = rate.value
                found[f"{head}/win_rate_low"] = rate.low
                found[f"{head}/gain"] = verdict.against_base.gain.value
            for distance in row.drift:
                name = distance.name.replace(" (", "_").rstrip(")")
                found[f"ablation/{row.name}/drift/{name}"] = distance.mean
        return found


Scores = NDArray[np.float64]


@dataclass(frozen=True)
class VariantRuns:
    """The finished runs of a variant: by seed, the content of `evaluation.json` and of `cost.json`."""

    name: str
    against: str | None
    evaluations: Mapping[int, Mapping[str, Any]]
    costs: Mapping[int, Mapping[str, Any]]
    folders: Mapping[int, str] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)

    def scores(self, judge: str, seeds: Sequence[int]) -> tuple[Scores, Scores]:
        """`(policy [S, P], base [S, P])`, means over images."""
        sides: dict[str, list[Scores]] = {"policy": [], "base": []}
        for seed in seeds:
            judgement = _judgement(self.evaluations[seed], judge)
            for side, rows in sides.items():
                rows.append(np.array(judgement[side], dtype=np.float64).mean(axis=1))  # None becomes NaN
        return np.array(sides["policy"]), np.array(sides["base"])


def tabulate(name: str, variants: Sequence[VariantRuns], *, seeds: int) -> AblationOutcome:
    """The table of these runs. Seeds that only one of two variants has finished are left out of their comparison."""
    known = [evaluation for variant in variants for evaluation in variant.evaluations.values()]
    judges = tuple(judgement["name"] for judgement in known[0]["judgements"]) if known else ()
    by_name = {variant.name: variant for variant in variants}
    rows = [_row(variant, by_name.get(variant.against or ""), judges) for variant in variants]
    verdicts = [verdict for row in rows for verdict in row.verdicts]
    base = iter(holm([v.against_base.p_value for v in verdicts]))
    variant = iter(holm([v.against_variant.p_value if v.against_variant else None for v in verdicts]))
    return AblationOutcome(
        name=name,
        judges=judges,
        prompts=len(known[0]["prompts"]) if known else 0,
        role=str(known[0]["role"]) if known else "",
        rows=tuple(
            replace(
                row,
                verdicts=tuple(replace(v, p_base_holm=next(base), p_variant_holm=next(variant)) for v in row.verdicts),
            )
            for row in rows
        ),
        complete=all(len(variant.evaluations) == seeds for variant in variants),
    )


def _row(variant: VariantRuns, other: VariantRuns | None, judges: Sequence[str]) -> Row:
    seeds = tuple(sorted(variant.evaluations))
    cost = _cost([variant.costs[seed] for seed in seeds if seed in variant.costs])
    both = tuple(seed for seed in seeds if other is not None and seed in other.evaluations)
    verdicts = []
    for judge in judges if seeds else ():
        policy, base = variant.scores(judge, seeds)
        last = variant.evaluations[seeds[-1]]
        judgement, made = _judgement(last, judge), bool(_judgement(last, judge)["made_labels"])
        prompts = variant.evaluations[seeds[0]]["prompts"]
        groups = [prompt["group"] or f"text: {prompt['text']}" for prompt in prompts]
        on_base = contrast(policy, base, groups)
        if on_base is None:
            continue
        on_variant = None
        if other is not None and both:
            on_variant = contrast(variant.scores(judge, both)[0], other.scores(judge, both)[0], groups)
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
                p_base_holm=None,
                against_variant=on_variant,
                p_variant_holm=None,
                win_points_per_million_passes=points,
                doubt=bool(judgement.get("learned", True)) * (1 + made),
            )
        )
    drift = _drift([variant.evaluations[seed] for seed in seeds])
    return Row(variant.name, variant.against, seeds, variant.failures, variant.folders, cost, tuple(verdicts), drift)


def _judgement(evaluation: Mapping[str, Any], judge: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in evaluation["judgements"] if one["name"] == judge)
    return found


def _cost(ledgers: Sequence[Mapping[str, Any]]) -> Cost | None:
    if not ledgers:
        return None
    flops = [ledger["training_tflop"] for ledger in ledgers]
    joules = [float(sum(known.values())) for ledger in ledgers if (known := ledger.get("joules"))]
    seconds = [ledger["seconds"].get("train", 0.0) + ledger["seconds"].get("invert", 0.0) for ledger in ledgers]
    return Cost(
        seconds=float(np.mean(seconds)),
        passes=float(np.mean([ledger["training_passes"] for ledger in ledgers])),
        pairs=float(np.mean([ledger["pairs"] for ledger in ledgers])),
        tflop=float(np.mean(flops)) if all(flop is not None for flop in flops) else None,
        peak_bytes=float(max(ledger["peak_bytes"] for ledger in ledgers)),
        joules=float(np.mean(joules)) if len(joules) == len(ledgers) else None,
    )


def _drift(evaluations: Sequence[Mapping[str, Any]]) -> tuple[DriftStat, ...]:
    """Distances that every run of a variant has measured."""
    measured = [
        {
            one["kind"] + (f" ({one['by']})" if one["by"] else ""): one["value"]
            for one in (evaluation.get("drift") or {}).get("distances", ())
        }
        for evaluation in evaluations
    ]
    names = [name for name in (measured[0] if measured else {}) if all(name in run for run in measured)]
    values = {name: np.array([run[name] for run in measured], dtype=np.float64) for name in names}
    return tuple(
        DriftStat(name, float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else None) for name, v in values.items()
    )
