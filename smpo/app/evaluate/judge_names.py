"""The names under which an evaluation's rewards appear."""

from __future__ import annotations

from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved

__all__ = ["judge_names"]


def judge_names(resolved: Resolved[ExperimentSpec]) -> list[str]:
    """What the judges are called in tables and metrics: card or component, numbered when one occurs twice."""
    names: list[str] = []
    for i, reward in enumerate(resolved.spec.evaluate.rewards if resolved.spec.evaluate else ()):
        card = resolved.card_of(f"evaluate.rewards.{i}")
        name = card.name if card else reward.use
        names.append(name if name not in names else f"{name}-{i + 1}")
    return names
