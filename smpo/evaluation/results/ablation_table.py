"""An ablation's table from its runs: variants over seeds, each against the base model and against the variant it builds
on.

`tabulate` works on what runs left in their folders (`evaluation.json`, `cost.json`), so a table can be made again, or
made of half an ablation. Holm's correction is over all of a table's questions of one sort: every variant and judge
against the base, and, apart from that, every variant and judge against the variant before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.results.ablation import AblationOutcome, Cost, DriftStat, Row, Verdict
from smpo.evaluation.statistics.over_seeds import contrast
from smpo.evaluation.statistics.paired import holm

__all__ = ["VariantRuns", "tabulate"]

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class VariantRuns:
    """The finished runs of a variant: for each seed, what its evaluation and its ledger say."""

    name: str
    against: str | None
    evaluations: Mapping[int, Mapping[str, Any]]
    costs: Mapping[int, Mapping[str, Any]]
    folders: Mapping[int, str] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)


def tabulate(name: str, variants: Sequence[VariantRuns], *, seeds: int) -> AblationOutcome:
    """The table of these runs. Seeds that only one of two variants has finished are left out of their comparison."""
    known = [evaluation for variant in variants for evaluation in variant.evaluations.values()]
    judges = tuple(judgement["name"] for judgement in known[0]["judgements"]) if known else ()
    by_name = {variant.name: variant for variant in variants}
    rows = [_row(variant, by_name.get(variant.against or ""), judges) for variant in variants]
    for sort in ("base", "variant"):
        places = [(i, k) for i, row in enumerate(rows) for k in range(len(row.verdicts))]
        raw = [_raw(rows[i].verdicts[k], sort) for i, k in places]
        for (i, k), p in zip(places, holm(raw), strict=True):
            verdicts = list(rows[i].verdicts)
            one = verdicts[k]
            verdicts[k] = replace(one, p_base=p) if sort == "base" else replace(one, p_variant=p)
            rows[i] = replace(rows[i], verdicts=tuple(verdicts))
    return AblationOutcome(
        name=name,
        judges=judges,
        prompts=len(known[0]["prompts"]) if known else 0,
        role=str(known[0]["role"]) if known else "",
        rows=tuple(rows),
        complete=all(len(variant.evaluations) == seeds for variant in variants),
    )


def _row(variant: VariantRuns, other: VariantRuns | None, judges: Sequence[str]) -> Row:
    seeds = tuple(sorted(variant.evaluations))
    cost = _cost([variant.costs[seed] for seed in seeds if seed in variant.costs])
    verdicts = []
    for judge in judges if seeds else ():
        policy, base, groups, found = _scores(variant, judge, seeds)
        made = bool(found["made_labels"])
        on_base = contrast(policy, base, groups)
        if on_base is None:
            continue
        on_variant = None
        both = tuple(seed for seed in seeds if other is not None and seed in other.evaluations)
        if other is not None and both:
            on_variant = contrast(_scores(variant, judge, both)[0], _scores(other, judge, both)[0], groups)
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
                against_variant=on_variant,
                p_variant=None,
                points_per_compute=points,
                doubt=bool(found.get("learned", True)) * (1 + made),
            )
        )
    drift = _drift([variant.evaluations[seed] for seed in seeds])
    return Row(
        variant.name, variant.against, seeds, variant.failures, variant.folders, cost, tuple(verdicts), drift
    )


def _scores(
    variant: VariantRuns, judge: str, seeds: Sequence[int]
) -> tuple[Scores, Scores, list[str], Mapping[str, Any]]:
    """`(policy [S, P], base [S, P], cluster of each prompt, what is said of the judge)`."""
    sides: dict[str, list[Scores]] = {"policy": [], "base": []}
    found: Mapping[str, Any] = {}
    for seed in seeds:
        found = next(one for one in variant.evaluations[seed]["judgements"] if one["name"] == judge)
        for side, rows in sides.items():
            images = np.array(found[side], dtype=np.float64)  # None becomes NaN
            rows.append(images.mean(axis=1))
    prompts = variant.evaluations[seeds[0]]["prompts"]
    groups = [prompt["group"] or f"text: {prompt['text']}" for prompt in prompts]
    return np.array(sides["policy"]), np.array(sides["base"]), groups, found


def _cost(ledgers: Sequence[Mapping[str, Any]]) -> Cost | None:
    if not ledgers:
        return None
    seconds = [one["seconds"].get("train", 0.0) + one["seconds"].get("invert", 0.0) for one in ledgers]
    flops = [one["training_tflop"] for one in ledgers]
    joules = [float(sum(told.values())) for one in ledgers if (told := one.get("joules"))]
    return Cost(
        seconds=float(np.mean(seconds)),
        passes=float(np.mean([one["training_passes"] for one in ledgers])),
        pairs=float(np.mean([one["pairs"] for one in ledgers])),
        tflop=float(np.mean(flops)) if all(flop is not None for flop in flops) else None,
        peak_bytes=float(max(one["peak_bytes"] for one in ledgers)),
        joules=float(np.mean(joules)) if len(joules) == len(ledgers) else None,
    )


def _raw(verdict: Verdict, sort: str) -> float | None:
    found = verdict.against_base if sort == "base" else verdict.against_variant
    return found.p_value if found is not None else None


def _drift(evaluations: Sequence[Mapping[str, Any]]) -> tuple[DriftStat, ...]:
    """Distances that every run of a variant has measured."""
    measured = [
        {
            one["kind"] + (f" ({one['by']})" if one["by"] else ""): one["value"]
            for one in (evaluation.get("drift") or {}).get("distances", ())
        }
        for evaluation in evaluations
    ]
    names = [name for name in (measured[0] if measured else {}) if all(name in one for one in measured)]
    values = {name: np.array([one[name] for one in measured], dtype=np.float64) for name in names}
    return tuple(
        DriftStat(name, float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else None)
        for name, v in values.items()
    )
