"""The result of an evaluation: a dictionary for files, numbers for curves, rows for tables.

Every figure that is shown has its interval, and every judge a mark if it made the training labels: a reward that rises
because it was optimised is not evidence that pictures got better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.results.drift import Drift
from smpo.evaluation.results.format import decimals, interval, number, p_value, percent, share
from smpo.evaluation.results.reward_hacking import RewardHackingReport, reward_hacking
from smpo.evaluation.sampling.generate import SamplingSettings
from smpo.evaluation.statistics.paired import Comparison, compare
from smpo.kinds import Prompt

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["COLUMNS", "CURVES", "Evaluation", "Judgement", "Scores", "clusters", "json_prompts", "json_scores"]

Scores = NDArray[np.float64]
COLUMNS = ("reward", "base", "policy", "gain [95 %]", "win rate [95 %]", "p (Holm)")
"""The keys of the rows of `Evaluation.table`, in order."""
CATEGORIES = 24
"""More categories than this are names, not categories."""
CURVES = (
    "win_rate", "win_rate_low", "win_rate_high", "mean_base", "mean_policy", "median_base", "median_policy",
    "gain", "gain_low", "gain_high", "p_value",
)  # fmt: skip
"""Figures of each judge in `Evaluation.metrics`."""


@dataclass(frozen=True)
class Judgement:
    """One reward's view. `base`, `policy`: `[P, I]` raw scores, prompts by images; NaN where it had none."""

    name: str
    key: str
    made_labels: bool
    learned: bool
    base: Scores
    policy: Scores
    comparison: Comparison
    p_holm: float | None
    """The p-value adjusted for the number of judges and models."""

    @property
    def gains(self) -> Scores:
        """Policy minus base, a prompt: `[P]`."""
        return np.asarray(self.policy.mean(axis=1) - self.base.mean(axis=1), dtype=np.float64)

    @property
    def doubt(self) -> int:
        """0 for a formula, which is what is wanted rather than a stand-in for it, even if it made the labels;
        1 for a learned judge, 2 for a learned judge that made the labels and so was optimised, flaws included."""
        return self.learned * (1 + self.made_labels)

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {
            "comparison": self.comparison.to_dict(),
            "base": json_scores(self.base),
            "policy": json_scores(self.policy),
        }


@dataclass(frozen=True)
class Evaluation:
    """A policy against its base on one set of prompts, by every judge."""

    prompts: tuple[Prompt, ...]
    judgements: tuple[Judgement, ...]
    settings: SamplingSettings
    prompt_set: str = ""
    role: str = ""
    kept_base: Mapping[int, list[Picture]] = field(default_factory=dict)
    """Prompt number -> its images, for the prompts whose pictures were kept."""
    kept_policy: Mapping[int, list[Picture]] = field(default_factory=dict)
    reused: int = 0
    """Pictures of the base that came from the cache."""
    drift: Drift | None = None
    """Distance of the policy from its base, if that was measured."""

    def judgement(self, name: str | None = None) -> Judgement:
        """The named judge's, or that of the least doubtful judge, the first listed among equals."""
        if name is not None:
            return next(judgement for judgement in self.judgements if judgement.name == name)
        return min(self.judgements, key=lambda judgement: judgement.doubt)

    @cached_property
    def by_category(self) -> dict[str, dict[str, Comparison]]:
        """Judge -> category -> comparison over its prompts; empty with one category, or with too many."""
        rows: dict[str, list[int]] = {}
        for i, prompt in enumerate(self.prompts):
            rows.setdefault(prompt.category, []).append(i)
        if not 1 < len(rows) <= CATEGORIES:
            return {judge.name: {} for judge in self.judgements}
        groups = clusters(self.prompts)
        return {
            judge.name: {
                name: compare(
                    judge.policy.mean(axis=1)[rows[name]],
                    judge.base.mean(axis=1)[rows[name]],
                    [groups[i] for i in rows[name]],
                )
                for name in sorted(rows)
            }
            for judge in self.judgements
        }

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Limits of these figures."""
        found = []
        made = [j for j in self.judgements if j.made_labels]
        others = [j for j in self.judgements if not j.made_labels]
        if made and not others:
            found.append(
                f"the only judge, `{made[0].name}`, also made the training labels: its gain shows that it "
                "was optimised, not that pictures are better; list another reward under `evaluate.rewards`"
            )
        hacked = [f"`{j.name}`" for j in others if j.comparison.verdict == "worse"]
        if any(j.comparison.verdict == "better" for j in made) and hacked:
            names = " and ".join([", ".join(hacked[:-1]), hacked[-1]] if hacked[1:] else hacked)
            found.append(
                f"`{made[0].name}`, which made the labels, went up while {names} went down: "
                "a sign of reward hacking; look at the pictures"
            )
        if self.role in ("training", "tuning"):
            found.append(f"these prompts are for {self.role}: report numbers from an untouched set")
        for judgement in self.judgements:
            found += [f"`{judgement.name}`: {note}" for note in judgement.comparison.notes]
        return tuple(found)

    @cached_property
    def panel(self) -> RewardHackingReport:
        """Whether the gain is one in pictures or in the reward alone."""
        return reward_hacking(self)

    def headline(self) -> str:
        """The result in a sentence or two, by the least doubtful judge."""
        judge = self.judgement()
        c = judge.comparison
        if c.win_rate is None or c.win_rate_low is None or c.win_rate_high is None:
            return f"Nothing can be said: `{judge.name}` has no finite scores of both models on any prompt."
        prompts = f"{c.prompts:,} {self.role} prompts" if self.role else f"{c.prompts:,} prompts"
        on = f"{percent(c.win_rate)} % of {prompts} "
        on += f"(95 % interval {percent(c.win_rate_low)} to {percent(c.win_rate_high)})"
        by = f"judged by `{judge.name}`" + (", which also made the training labels" * judge.made_labels)
        if c.verdict == "better":
            return f"The policy beats its base on {on}, {by}."
        if c.verdict == "worse":
            return f"The policy is worse than its base: it wins on only {on}, {by}."
        needed = c.prompts_needed(0.02)
        size: int = 10 ** max(0, len(str(needed)) - 2)
        return (
            f"No difference is resolved: the policy wins on {on}, {by}. "
            f"About {math.ceil(needed / size) * size:,} such prompts would settle it to ±2 points."
        )

    def metrics(self) -> dict[str, float]:
        """`eval/<reward>/<figure>`, for curves and run tables. Figures that don't exist are absent, not NaN."""
        found = {
            f"eval/{judgement.name}/{name}": float(value)
            for judgement in self.judgements
            for name in CURVES
            if (value := getattr(judgement.comparison, name)) is not None
        }
        return found | self.panel.metrics() | (self.drift.metrics() if self.drift else {})

    def table(self) -> list[dict[str, str]]:
        """A row a judge, under `COLUMNS`; means over prompts. A star marks the reward that made the labels."""
        rows = []
        for judgement in self.judgements:
            c = judgement.comparison
            digits = decimals(c.gain, c.gain_low, c.gain_high)
            cells = (
                judgement.name + "*" * judgement.made_labels,
                number(c.mean_base, digits),
                number(c.mean_policy, digits),
                interval(c.gain, c.gain_low, c.gain_high, digits),
                share(c.win_rate, c.win_rate_low, c.win_rate_high),
                p_value(judgement.p_holm),
            )
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, with every score; ready for JSON (None where a score isn't finite)."""
        return {
            "prompt_set": self.prompt_set,
            "role": self.role,
            "settings": self.settings.to_dict(),
            "headline": self.headline(),
            "warnings": list(self.warnings),
            "goodhart": self.panel.to_dict(),
            "drift": self.drift.to_dict() if self.drift else None,
            "prompts": json_prompts(self.prompts),
            "judgements": [judgement.to_dict() for judgement in self.judgements],
            "kept": sorted(self.kept_policy),
            "reused": self.reused,
        }


def clusters(prompts: Sequence[Prompt]) -> list[str]:
    """The cluster of each prompt: its group, else its text, so that one text twice is one cluster."""
    return [prompt.group or f"text: {prompt.text}" for prompt in prompts]


def json_prompts(prompts: Sequence[Prompt]) -> list[dict[str, str]]:
    return [{"text": p.text, "group": p.group, "category": p.category} for p in prompts]


def json_scores(scores: Scores) -> list[list[float | None]]:
    """None where a score isn't finite."""
    return [[value if math.isfinite(value) else None for value in row] for row in scores.tolist()]
