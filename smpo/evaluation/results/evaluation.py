"""What an evaluation found, and how to say it: a dictionary for files, numbers for curves, rows for the
console.

Every figure that is shown carries its interval, and every judge says whether it made the training labels: a
reward that rises because it was optimised is not evidence that pictures got better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.results.drift import Drift
from smpo.evaluation.results.reward_hacking import reward_hacking
from smpo.evaluation.results.reward_hacking_panel import RewardHackingReport
from smpo.evaluation.statistics.paired import Comparison
from smpo.kinds import Prompt

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["COLUMNS", "Evaluation", "Judgement", "decimals", "percent"]

COLUMNS = ("reward", "base", "policy", "gain [95 %]", "win rate [95 %]", "p (Holm)")
"""The keys of the rows of `Evaluation.table`, in order."""

_CURVES = (
    "win_rate", "win_rate_low", "win_rate_high", "mean_base", "mean_policy", "median_base", "median_policy",
    "gain", "gain_low", "gain_high", "p_value",
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """One reward's view. `base`, `policy`: `[P, I]` raw scores, prompts by images; NaN where it had none."""

    name: str
    key: str
    made_labels: bool
    learned: bool
    base: NDArray[np.float64]
    policy: NDArray[np.float64]
    comparison: Comparison
    p_holm: float | None
    """The p-value adjusted for the number of judges."""

    @property
    def gains(self) -> NDArray[np.float64]:
        """Policy minus base, a prompt: `[P]`."""
        return np.asarray(self.policy.mean(axis=1) - self.base.mean(axis=1), dtype=np.float64)

    @property
    def doubt(self) -> int:
        """0 for a formula, which is what is wanted rather than a stand-in for it, even if it made the labels;
        1 for a learned judge, 2 for a learned judge that made the labels and so was optimised, flaws
        included.
        """
        return self.learned * (1 + self.made_labels)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "key": self.key,
            "made_labels": self.made_labels,
            "learned": self.learned,
            "comparison": self.comparison.to_dict(),
            "p_holm": self.p_holm,
            "base": _plain(self.base),
            "policy": _plain(self.policy),
        }


@dataclass(frozen=True)
class Evaluation:
    """A policy against its base on one set of prompts, by every judge."""

    prompts: tuple[Prompt, ...]
    judgements: tuple[Judgement, ...]
    guidance: float
    steps: int
    images: int
    seed: int
    prompt_set: str = ""
    role: str = ""
    kept_base: Mapping[int, list[Picture]] = field(default_factory=dict)
    """Prompt number -> its images, for the prompts whose pictures were kept."""
    kept_policy: Mapping[int, list[Picture]] = field(default_factory=dict)
    reused: int = 0
    """Pictures of the base that came from the cache."""
    drift: Drift | None = None
    """How far the policy has gone, if that was measured."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Heights and widths of the pictures; none for the model's own."""

    def judgement(self, name: str | None = None) -> Judgement:
        """The named judge's, or that of the least doubtful judge, the first listed among equals."""
        if name is not None:
            return next(judgement for judgement in self.judgements if judgement.name == name)
        return min(self.judgements, key=lambda judgement: judgement.doubt)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a careful reader should know before believing the numbers."""
        found = []
        made = [j for j in self.judgements if j.made_labels]
        others = [j for j in self.judgements if not j.made_labels]
        if made and not others:
            found.append(
                f"the only judge, `{made[0].name}`, also made the training labels: its gain shows that it "
                "was optimised, not that pictures are better; list another reward under `evaluate.rewards`"
            )
        hacked = [j.name for j in others if j.comparison.verdict == "worse"]
        if any(j.comparison.verdict == "better" for j in made) and hacked:
            found.append(
                f"`{made[0].name}`, which made the labels, went up while {_listed(hacked)} went down: "
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
        """The result in a sentence or two, by the judge that is believed first."""
        judge = self.judgement()
        c = judge.comparison
        if c.win_rate is None or c.win_rate_low is None or c.win_rate_high is None:
            return f"Nothing can be said: `{judge.name}` has no finite scores of both models on any prompt."
        interval = f"95 % interval {percent(c.win_rate_low)} to {percent(c.win_rate_high)}"
        prompts = f"{c.prompts:,} {self.role} prompts" if self.role else f"{c.prompts:,} prompts"
        on = f"{percent(c.win_rate)} % of {prompts} ({interval})"
        by = f"judged by `{judge.name}`" + (", which also made the training labels" * judge.made_labels)
        if c.verdict == "better":
            return f"The policy beats its base on {on}, {by}."
        if c.verdict == "worse":
            return f"The policy is worse than its base: it wins on only {on}, {by}."
        return (
            f"No difference is resolved: the policy wins on {on}, {by}. "
            f"About {_rounded(c.prompts_needed(0.02)):,} such prompts would settle it to ±2 points."
        )

    def metrics(self) -> dict[str, float]:
        """`eval/<reward>/<figure>`, for curves and run tables. Figures that don't exist are absent, not
        NaN."""
        found = {}
        for judgement in self.judgements:
            for name in _CURVES:
                value = getattr(judgement.comparison, name)
                if value is not None:
                    found[f"eval/{judgement.name}/{name}"] = float(value)
        return found | self.panel.metrics() | (self.drift.metrics() if self.drift else {})

    def table(self) -> list[dict[str, str]]:
        """A row a judge, under `COLUMNS`; means over prompts. A star marks the reward that made the
        labels."""
        rows = []
        for judgement in self.judgements:
            c, p = judgement.comparison, judgement.p_holm
            digits = decimals(c)
            cells = (
                judgement.name + ("*" if judgement.made_labels else ""),
                _number(c.mean_base, digits),
                _number(c.mean_policy, digits),
                _interval(c.gain, c.gain_low, c.gain_high, f"+.{digits}f"),
                _shares(c),
                "–" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}",
            )
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, with every score; ready for JSON (None where a score isn't finite)."""
        return {
            "prompt_set": self.prompt_set,
            "role": self.role,
            "settings": {
                "guidance": self.guidance,
                "steps": self.steps,
                "images": self.images,
                "seed": self.seed,
                **({"sizes": [[width, height] for height, width in self.sizes]} if self.sizes else {}),
            },
            "headline": self.headline(),
            "warnings": list(self.warnings),
            "goodhart": self.panel.to_dict(),
            "drift": self.drift.to_dict() if self.drift else None,
            "prompts": [{"text": p.text, "group": p.group, "category": p.category} for p in self.prompts],
            "judgements": [judgement.to_dict() for judgement in self.judgements],
            "kept": sorted(self.kept_policy),
            "reused": self.reused,
        }


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def decimals(c: Comparison) -> int:
    """As many decimals as give the gain's interval two figures: more would be noise, fewer would hide it."""
    width = abs(c.gain_high - c.gain_low) / 2 if c.gain_high is not None and c.gain_low is not None else 0.0
    width = width or abs(c.gain or 0.0) or 1.0
    return max(0, min(8, 1 - math.floor(math.log10(width))))


def _plain(scores: NDArray[np.float64]) -> list[list[float | None]]:
    return [[value if math.isfinite(value) else None for value in row] for row in scores.tolist()]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return "–"
    return (
        f"{value:{form}} [" + ("–" if low is None or high is None else f"{low:{form}}, {high:{form}}") + "]"
    )


def _shares(c: Comparison) -> str:
    if c.win_rate is None or c.win_rate_low is None or c.win_rate_high is None:
        return "–"
    return f"{percent(c.win_rate)} % [{percent(c.win_rate_low)}, {percent(c.win_rate_high)}]"


def _rounded(count: int) -> int:
    """Two figures of a rough number."""
    size: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / size) * size


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
