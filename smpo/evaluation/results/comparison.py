"""Any number of models on the same prompts and seeds: each against the base, by every judge, with one correction.

`rank` compares scores that were drawn and cached elsewhere. A run against its base is the case of one model
(`smpo.evaluation.results.evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smpo.errors import RunError
from smpo.evaluation.results.drift import Drift
from smpo.evaluation.results.evaluation import Evaluation, Judgement, Scores, clusters, json_prompts, json_scores
from smpo.evaluation.results.reward_hacking import RewardHackingReport
from smpo.evaluation.sampling.generate import SamplingSettings
from smpo.evaluation.statistics.paired import compare, holm
from smpo.kinds import Prompt

__all__ = ["Judge", "ModelComparison", "rank"]


@dataclass(frozen=True)
class Judge:
    """A reward that scores pictures. `made_labels`: for the training of one of these models, as far as is known."""

    name: str
    key: str
    learned: bool
    made_labels: bool


@dataclass(frozen=True)
class ModelComparison:
    """Models against one base on the same prompts and seeds: an `Evaluation` each."""

    base: str
    evaluations: Mapping[str, Evaluation]
    judges: tuple[Judge, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The base first."""
        return (self.base, *self.evaluations)

    @property
    def first(self) -> Evaluation:
        """Prompts, settings and the base's scores are the same in all."""
        return next(iter(self.evaluations.values()))

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.first.prompts

    @property
    def settings(self) -> SamplingSettings:
        return self.first.settings

    @property
    def prompt_set(self) -> str:
        return self.first.prompt_set

    @property
    def role(self) -> str:
        return self.first.role

    @property
    def drift(self) -> dict[str, Drift]:
        """Distance of each model from the base, where that was measured."""
        return {model: found.drift for model, found in self.evaluations.items() if found.drift is not None}

    @property
    def panels(self) -> dict[str, RewardHackingReport]:
        return {model: found.panel for model, found in self.evaluations.items()}

    def judgement(self, model: str, judge: str) -> Judgement:
        return self.evaluations[model].judgement(judge)

    def scores(self, model: str, judge: str) -> Scores:
        """`[P, I]`."""
        return self.first.judgement(judge).base if model == self.base else self.judgement(model, judge).policy

    def believed(self) -> Judge:
        """The judge to look at first: a formula before a learned one, one that made no labels before one that did."""
        return min(self.judges, key=lambda judge: judge.learned * (1 + judge.made_labels))

    def agreement(self) -> list[dict[str, Any]]:
        """For every two judges: the share of prompts on which they prefer the same side, over all models."""
        rows = []
        gains = {
            judge.name: np.concatenate([self.judgement(model, judge.name).gains for model in self.evaluations])
            for judge in self.judges
        }
        for i, first in enumerate(gains):
            for second in list(gains)[i + 1 :]:
                ours, theirs = np.sign(gains[first]), np.sign(gains[second])
                decided = (ours != 0) & (theirs != 0) & np.isfinite(ours) & np.isfinite(theirs)
                share = float((ours == theirs)[decided].mean()) if decided.any() else None
                rows.append({"judges": [first, second], "agree": share, "prompts": int(decided.sum())})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures; ready for JSON."""
        return {
            "prompt_set": self.prompt_set,
            "role": self.role,
            "settings": self.settings.to_dict(),
            "base": self.base,
            "models": list(self.models),
            "judges": [vars(judge) for judge in self.judges],
            "prompts": json_prompts(self.prompts),
            "standings": [
                {
                    "model": model,
                    "judge": judgement.name,
                    "comparison": judgement.comparison.to_dict(),
                    "p_holm": judgement.p_holm,
                    "categories": {name: c.to_dict() for name, c in evaluation.by_category[judgement.name].items()},
                }
                for model, evaluation in self.evaluations.items()
                for judgement in evaluation.judgements
            ],
            "agreement": self.agreement(),
            "drift": {model: drift.to_dict() for model, drift in self.drift.items()},
            "goodhart": {model: panel.to_dict() for model, panel in self.panels.items()},
            "scores": {
                model: {judge.name: json_scores(self.scores(model, judge.name)) for judge in self.judges}
                for model in self.models
            },
        }


def rank(
    prompts: Sequence[Prompt],
    judges: Sequence[Judge],
    scores: Mapping[str, Mapping[str, Scores]],
    *,
    settings: SamplingSettings,
    prompt_set: str = "",
    role: str = "",
    label_makers: Mapping[str, str | None] | None = None,
) -> ModelComparison:
    """Compare every model with the first. Holm's correction is over all models and judges together.

    `scores`: model -> judge -> `[P, I]`. `label_makers`: model -> key of the reward that made its training labels;
    None takes each judge's `made_labels` for all models. Raises `RunError` without prompts, judges or models.
    """
    base, *models = scores
    if not prompts or not judges or not models:
        raise RunError(f"nothing to compare: {len(prompts)} prompts, {len(judges)} judges, {len(models)} models")
    groups, means = clusters(prompts), {judge.name: scores[base][judge.name].mean(axis=1) for judge in judges}
    comparisons = [
        compare(scores[model][judge.name].mean(axis=1), means[judge.name], groups)
        for model in models
        for judge in judges
    ]
    pairs = zip(comparisons, holm([c.p_value for c in comparisons]), strict=True)
    evaluations = {}
    for model in models:
        judgements = []
        for judge in judges:
            comparison, p = next(pairs)
            made = judge.made_labels if label_makers is None else judge.key == label_makers[model]
            ours, theirs = scores[model][judge.name], scores[base][judge.name]
            judgements.append(Judgement(judge.name, judge.key, made, judge.learned, theirs, ours, comparison, p))
        evaluations[model] = Evaluation(tuple(prompts), tuple(judgements), settings, prompt_set, role)
    return ModelComparison(base, evaluations, tuple(judges))
