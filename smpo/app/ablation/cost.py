"""What a whole ablation would take, from the plans of its variants. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from smpo.app.ablation.spec import Ablation
from smpo.app.plan.gpu_time import costs_by_gpu
from smpo.app.plan.plan import make_plan

__all__ = ["AblationCost", "ablation_cost"]


@dataclass(frozen=True)
class AblationCost:
    """All variants, with all their seeds."""

    passes: tuple[float, ...]
    """Forwards of the UNet in one run's training, variant by variant; a backward counts as two."""
    runs: int
    total_passes: float
    hours: dict[str, float] = field(default_factory=dict)
    """GPU -> hours, where every variant's network is known and fits. Scores and latents are shared: those of the
    variant that wants most count once."""
    uncounted: bool = False
    """Whether some plan leaves out what can't be known here."""


def ablation_cost(ablation: Ablation) -> AblationCost:
    """A plan a variant; seeds cost alike."""
    plans, seeds = [make_plan(variant.resolved) for variant in ablation.variants], len(ablation.seeds)
    passes = tuple(plan.total_passes for plan in plans)
    hours = {
        gpu: seeds * sum(cost.training_hours + cost.judging_hours for cost in costs)
        + max(cost.preparing_hours for cost in costs)
        for gpu, costs in costs_by_gpu(plan.gpus for plan in plans).items()
    }
    return AblationCost(
        passes,
        runs=len(plans) * seeds,
        total_passes=seeds * sum(passes),
        hours=hours,
        uncounted=any(plan.uncounted for plan in plans),
    )
