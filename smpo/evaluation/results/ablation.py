"""What an ablation found, as data: a row a variant, a verdict a judge. `outcome_text` says it, `ablation` works it
out."""

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
    """Of all devices that tell; the whole run, evaluation included."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "passes": self.passes,
            "pairs": self.pairs,
            "tflop": self.tflop,
            "peak_bytes": self.peak_bytes,
            "joules": self.joules,
        }


@dataclass(frozen=True)
class Verdict:
    """One judge's view of a variant."""

    judge: str
    made_labels: bool
    mean: float
    median: float
    mean_base: float
    median_base: float
    against_base: Contrast
    p_base: float | None
    """Holm-adjusted."""
    against_variant: Contrast | None
    p_variant: float | None
    points_per_compute: float | None
    """Points of win rate above one half that a million passes bought."""
    doubt: int = 0
    """0 for a formula, 1 for a learned judge, 2 for one that made this variant's labels, as in `result.Judgement`."""

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
            "against_variant": self.against_variant.to_dict() if self.against_variant else None,
            "p_variant_holm": self.p_variant,
            "win_points_per_million_passes": self.points_per_compute,
        }


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
    """How far its policies have gone."""


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
            judge: max((v.doubt for row in self.rows for v in row.verdicts if v.judge == judge), default=0)
            for judge in self.judges
        }
        return min(doubts, key=lambda judge: doubts[judge], default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "complete": self.complete,
            "prompts": self.prompts,
            "role": self.role,
            "judges": list(self.judges),
            "variants": [
                {
                    "name": row.name,
                    "against": row.against,
                    "seeds": list(row.seeds),
                    "failures": {str(seed): why for seed, why in row.failures.items()},
                    "folders": {str(seed): folder for seed, folder in row.folders.items()},
                    "cost": row.cost.to_dict() if row.cost else None,
                    "judges": [verdict.to_dict() for verdict in row.verdicts],
                    "drift": [asdict(far) for far in row.drift],
                }
                for row in self.rows
            ],
        }

    def metrics(self) -> dict[str, float]:
        """`ablation/<variant>/<judge>/<figure>`."""
        found: dict[str, float] = {}
        for row in self.rows:
            for verdict in row.verdicts:
                rate, gain = verdict.against_base.win_rate, verdict.against_base.gain
                head = f"ablation/{row.name}/{verdict.judge}"
                found |= {
                    f"{head}/win_rate": rate.value,
                    f"{head}/win_rate_low": rate.low,
                    f"{head}/gain": gain.value,
                }
            for far in row.drift:
                name = far.name.replace(" (", "_").rstrip(")")
                found[f"ablation/{row.name}/drift/{name}"] = far.mean
        return found
