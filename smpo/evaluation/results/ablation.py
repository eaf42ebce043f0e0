"""The outcome of an ablation as data: a row a variant, a verdict a judge, over training seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from smpo.evaluation.statistics.over_seeds import Contrast

__all__ = ["AblationOutcome", "Cost", "DriftStat", "Row", "Verdict"]


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
