"""Whether two evaluations of one model agree: score by score, and in their conclusions.

Pictures are matched by what they were drawn from, their text and seed, so an evaluation of fewer prompts can be
compared with one of all. Two computers rarely agree to the last bit; a conclusion is confirmed when the new gain and
the new win rate lie within the recorded intervals, over the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smpo.errors import RunError
from smpo.evaluation.results.evaluation import clusters
from smpo.evaluation.sampling.slots import slots
from smpo.evaluation.statistics.paired import Comparison, compare
from smpo.kinds import Prompt

__all__ = ["Agreement", "Table", "agreements", "recorded"]

MODELS = ("base", "policy")


@dataclass(frozen=True)
class Table:
    """Scores `[judge][model][prompt][image]`, None where there was no finite score."""

    prompts: Sequence[Prompt]
    images: int
    seed: int
    scores: Mapping[str, Mapping[str, Sequence[Sequence[float | None]]]]
    keys: Mapping[str, str]
    """Name -> scorer key, which identifies a judge: a card's name is lost when a resolved spec is run again."""

    def named(self, key: str) -> str | None:
        """The name of the judge with this key."""
        return next((name for name, found in self.keys.items() if found == key and name in self.scores), None)

    def by_picture(self, judge: str, model: str) -> dict[tuple[str, int], float]:
        """`(text, seed)` -> score."""
        rows = self.scores[judge][model]
        drawn = slots(self.prompts, images=self.images, seed=self.seed)
        found = {(slot.text, slot.seed): rows[slot.prompt][slot.image] for slot in drawn}
        return {key: math.nan if score is None else float(score) for key, score in found.items()}


@dataclass(frozen=True)
class Agreement:
    """One judge's view of two evaluations. `missing`: recorded pictures that the new one doesn't have."""

    judge: str
    pictures: int
    missing: int
    differing: Mapping[str, int]
    """Model -> pictures whose scores are not equal to the last bit."""
    largest: float
    """Largest difference of a score."""
    before: Comparison
    now: Comparison

    @property
    def bitwise(self) -> bool:
        return self.pictures > 0 and not any(self.differing.values())

    @property
    def within(self) -> bool:
        """Whether the new figures lie in the recorded intervals. Equal figures always do."""
        if self.pictures == 0:
            return False
        b, n = self.before, self.now
        return self.bitwise or (
            _inside(n.gain, b.gain, b.gain_low, b.gain_high)
            and _inside(n.win_rate, b.win_rate, b.win_rate_low, b.win_rate_high)
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "pictures": self.pictures,
            "missing": self.missing,
            "differing": dict(self.differing),
            "largest": self.largest,
            "bitwise": self.bitwise,
            "within": self.within,
            "recorded": self.before.to_dict(),
            "now": self.now.to_dict(),
        }


def recorded(evaluation: Any) -> Table:
    """The table in an `evaluation.json`. Raises `RunError` when it isn't one."""
    try:
        settings = evaluation["settings"]
        prompts = [Prompt(str(p["text"]), str(p["group"]), str(p["category"])) for p in evaluation["prompts"]]
        images, seed = int(settings["images"]), int(settings["seed"])
        judges = {str(judge["name"]): judge for judge in evaluation["judgements"]}
        keys = {name: str(judge["key"]) for name, judge in judges.items()}
        scores = {
            name: {model: [[_score(x) for x in row] for row in judge[model]] for model in MODELS}
            for name, judge in judges.items()
        }
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"the recorded evaluation can't be read: {type(error).__name__} {error}") from error
    wanted = [images] * len(prompts)
    if any([len(row) for row in rows] != wanted for both in scores.values() for rows in both.values()):
        raise RunError("the recorded evaluation can't be read: scores and prompts don't fit together")
    return Table(prompts, images, seed, scores, keys)


def agreements(before: Table, now: Table) -> list[Agreement]:
    """A view for each judge that both have, over the pictures that both have."""
    shared = [(judge, now.named(before.keys[judge])) for judge in before.scores]
    return [_agreement(judge, same, before, now) for judge, same in shared if same is not None]


def _agreement(judge: str, same: str, before: Table, now: Table) -> Agreement:
    old = {model: before.by_picture(judge, model) for model in MODELS}
    new = {model: now.by_picture(same, model) for model in MODELS}
    wanted = slots(before.prompts, images=before.images, seed=before.seed)
    rows: dict[int, list[tuple[str, int]]] = {}
    for slot in wanted:
        if (slot.text, slot.seed) in new["policy"]:
            rows.setdefault(slot.prompt, []).append((slot.text, slot.seed))
    rows = {prompt: keys for prompt, keys in rows.items() if len(keys) == before.images}
    pictures = [key for keys in rows.values() for key in keys]
    gaps = {model: [_gap(old[model][key], new[model][key]) for key in pictures] for model in MODELS}
    groups = clusters([before.prompts[number] for number in rows])

    def means(scores: Mapping[tuple[str, int], float]) -> list[float]:
        return [float(np.mean([scores[key] for key in keys])) for keys in rows.values()]

    return Agreement(
        judge=judge,
        pictures=len(pictures),
        missing=len(wanted) - len(pictures) if len(now.prompts) >= len(before.prompts) else 0,
        differing={model: sum(gap > 0 for gap in gaps[model]) for model in MODELS},
        largest=max((gap for both in gaps.values() for gap in both), default=0.0),
        before=compare(means(old["policy"]), means(old["base"]), groups),
        now=compare(means(new["policy"]), means(new["base"]), groups),
    )


def _gap(a: float, b: float) -> float:
    """0 for the same number, also for NaN twice; infinite where only one of them is a number."""
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b)


def _inside(now: float | None, before: float | None, low: float | None, high: float | None) -> bool:
    if now is None or before is None:
        return now is before
    if low is None or high is None:
        return math.isclose(now, before, rel_tol=1e-6)
    slack = 1e-9 + 1e-6 * abs(before)
    return low - slack <= now <= high + slack


def _score(value: Any) -> float | None:
    return None if value is None else float(value)
