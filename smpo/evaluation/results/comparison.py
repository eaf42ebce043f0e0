"""Any number of models on the same prompts and seeds: each against the base, by every judge, with one correction.

`rank` compares scores that were drawn and cached elsewhere (`smpo.app.evaluate.compare`). What comes back knows no
files and prints nothing; `contest_text` says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smpo.errors import RunError
from smpo.evaluation.results.drift import Drift
from smpo.evaluation.results.reward_hacking_panel import RewardHackingReport
from smpo.evaluation.statistics.paired import Comparison, compare, holm
from smpo.kinds import Prompt

__all__ = ["Judge", "ModelComparison", "PairwiseResult", "rank"]

Scores = NDArray[np.float64]
CATEGORIES = 24
"""More categories than this are names, not categories."""


@dataclass(frozen=True)
class Judge:
    """Who scores. `made_labels`: for these models' training, as far as is known."""

    name: str
    key: str
    learned: bool
    made_labels: bool


@dataclass(frozen=True)
class PairwiseResult:
    """One model by one judge, against the base."""

    model: str
    judge: str
    comparison: Comparison
    p_holm: float | None
    categories: Mapping[str, Comparison]


@dataclass(frozen=True)
class ModelComparison:
    """Scores of all models, `[P, I]` for each model and judge, and what they say."""

    prompts: tuple[Prompt, ...]
    models: tuple[str, ...]
    """The base first."""
    judges: tuple[Judge, ...]
    scores: Mapping[str, Mapping[str, Scores]]
    results: tuple[PairwiseResult, ...]
    settings: Mapping[str, Any]
    prompt_set: str = ""
    role: str = ""
    drift: Mapping[str, Drift] = field(default_factory=dict)
    """How far each model is from the base, where that was measured."""
    panels: Mapping[str, RewardHackingReport] = field(default_factory=dict)
    """Whether a model's gain is one in pictures or in its reward alone, where pictures could be looked at."""

    @property
    def base(self) -> str:
        return self.models[0]

    @property
    def groups(self) -> list[str]:
        return clusters(self.prompts)

    def result(self, model: str, judge: str) -> PairwiseResult:
        return next(one for one in self.results if (one.model, one.judge) == (model, judge))

    def believed(self) -> Judge:
        """The judge to look at first: a formula before a learned one, one that made no labels before one that did."""
        return min(self.judges, key=lambda judge: judge.learned * (1 + judge.made_labels))

    def against(self, model: str, other: str, judge: str) -> Comparison:
        """Any two models, without a correction: a question somebody asks, not a table."""
        ours, theirs = self.scores[model][judge], self.scores[other][judge]
        return compare(ours.mean(axis=1), theirs.mean(axis=1), self.groups)

    def agreement(self) -> list[dict[str, Any]]:
        """For every two judges: the share of prompts on which they prefer the same side, over all models."""
        rows = []
        for i, first in enumerate(self.judges):
            for second in self.judges[i + 1 :]:
                signs = [
                    [np.sign(self._gains(model, judge.name)) for judge in (first, second)]
                    for model in self.models[1:]
                ]
                ours, theirs = (np.concatenate([pair[side] for pair in signs]) for side in (0, 1))
                decided = (ours != 0) & (theirs != 0) & np.isfinite(ours) & np.isfinite(theirs)
                share = float((ours == theirs)[decided].mean()) if decided.any() else None
                rows.append(
                    {"judges": [first.name, second.name], "agree": share, "prompts": int(decided.sum())}
                )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures; ready for JSON."""
        return {
            "prompt_set": self.prompt_set,
            "role": self.role,
            "settings": dict(self.settings),
            "base": self.base,
            "models": list(self.models),
            "judges": [vars(judge) for judge in self.judges],
            "prompts": [{"text": p.text, "group": p.group, "category": p.category} for p in self.prompts],
            "standings": [
                {
                    "model": one.model,
                    "judge": one.judge,
                    "comparison": one.comparison.to_dict(),
                    "p_holm": one.p_holm,
                    "categories": {name: c.to_dict() for name, c in one.categories.items()},
                }
                for one in self.results
            ],
            "agreement": self.agreement(),
            "drift": {model: drift.to_dict() for model, drift in self.drift.items()},
            "goodhart": {model: panel.to_dict() for model, panel in self.panels.items()},
            "scores": {
                model: {judge: _plain(rows) for judge, rows in by_judge.items()}
                for model, by_judge in self.scores.items()
            },
        }

    def _gains(self, model: str, judge: str) -> Scores:
        return np.asarray((self.scores[model][judge] - self.scores[self.base][judge]).mean(axis=1))


def rank(
    prompts: Sequence[Prompt],
    judges: Sequence[Judge],
    scores: Mapping[str, Mapping[str, Scores]],
    *,
    settings: Mapping[str, Any],
    prompt_set: str = "",
    role: str = "",
    drift: Mapping[str, Drift] | None = None,
) -> ModelComparison:
    """Compare every model with the first. Holm's correction is over all models and judges together."""
    base, *others = scores
    groups = clusters(prompts)
    raw: list[tuple[str, str, Comparison, dict[str, Comparison]]] = []
    for model in others:
        for judge in judges:
            ours, theirs = (scores[name][judge.name].mean(axis=1) for name in (model, base))
            named = {prompt.category for prompt in prompts}
            parts: dict[str, Comparison] = {}
            for category in sorted(named) if 1 < len(named) <= CATEGORIES else ():
                rows = [i for i, prompt in enumerate(prompts) if prompt.category == category]
                parts[category] = compare(ours[rows], theirs[rows], [groups[i] for i in rows])
            raw.append((model, judge.name, compare(ours, theirs, groups), parts))
    adjusted = holm([comparison.p_value for _, _, comparison, _ in raw])
    standings = tuple(
        PairwiseResult(model, judge, comparison, p, parts)
        for (model, judge, comparison, parts), p in zip(raw, adjusted, strict=True)
    )
    if not prompts or not judges or not others:
        raise RunError(
            f"nothing to compare: {len(prompts)} prompts, {len(judges)} judges, {len(others)} models"
        )
    return ModelComparison(
        tuple(prompts),
        tuple(scores),
        tuple(judges),
        scores,
        standings,
        settings,
        prompt_set,
        role,
        drift or {},
    )


def clusters(prompts: Sequence[Prompt]) -> list[str]:
    """Prompts that aren't independent of each other; one text twice is one cluster."""
    return [prompt.group or f"text: {prompt.text}" for prompt in prompts]


def _plain(scores: Scores) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in scores.tolist()]
